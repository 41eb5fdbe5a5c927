// Which points: under the pointer, pinned, found, shown.
// under the pointer, and pinned
function nearest(px, py, reach) {
  for (const [i, cx, cy, w, h] of tiled || []) if (Math.abs(px - cx) < w && Math.abs(py - cy) < h) return i;
  let best = -1, least = reach * reach;
  for (let k = n - 1; k >= 0; k--) {
    const i = order[k];
    if (!shown[i] || !matched[i]) continue;
    const dx = shift[0] + zoom * x[i] - px, dy = shift[1] - zoom * y[i] - py, d = dx * dx + dy * dy;
    if (d < least) { least = d; best = i; }
  }
  return best;
}
function describe(i, most) {
  const parts = [];
  if (pictures && pictures[i]) {
    const photo = make("img", "photo");
    photo.alt = ""; photo.src = PREFIX + pictures[i];
    parts.push(photo);
  } else if (pictures && pictures[i] === "") parts.push(make("p", "keys", "The image cannot be read."));
  const name = make("div", "name");  // which breaks between folders rather than within
  for (const piece of ids[i].split(/(?<=[/_ -])/)) name.append(piece, make("wbr"));
  parts.push(name);
  const list = make("dl");
  for (const field of fields.slice(0, most)) {
    const value = make("dd", "", told(field, i));
    if (field === colour) value.prepend(dot(field, level(field, i)));
    list.append(make("dt", "", field.name), value);
  }
  parts.push(list);
  return parts;
}
function point(i) {
  if (i === hover) return;
  hover = i;
  canvas.classList.toggle("onpoint", i >= 0);
  tip.hidden = i < 0;
  if (i >= 0) {
    tip.replaceChildren(...describe(i, 6));
    const px = shift[0] + zoom * x[i], py = shift[1] - zoom * y[i];
    const left = px + 18 + tip.offsetWidth > width ? px - 18 - tip.offsetWidth : px + 18;
    const top = Math.max(6, Math.min(py - 30, height - tip.offsetHeight - 6));
    tip.style.transform = `translate(${Math.max(6, left)}px, ${top}px)`;
    say.textContent = ids[i] + (colour ? ", " + told(colour, i) : "");
  }
  halo(over, hover);
}
function pin(i, focus = false) {
  pinned = i;
  card.hidden = i < 0;
  card.replaceChildren();
  if (i >= 0) {
    card.append(...describe(i, fields.length));
    if (neighbours) near(i);
    const row = make("div", "row");
    const link = make("button", "", "Copy link"), close = make("button", "", "Unpin");
    link.type = close.type = "button";
    link.onclick = () => navigator.clipboard?.writeText(location.href).then(() => { link.textContent = "Copied"; });
    close.onclick = () => { pin(-1); canvas.focus(); };
    row.append(...(alone ? [link] : []), close);
    card.append(row);
    one("aside").scrollTop = 0;
    say.textContent = "Pinned " + ids[i];
    if (focus) reveal(i);
  }
  if (alone) try {
    history.replaceState(null, "", i < 0 ? location.pathname + location.search : "#point=" + encodeURIComponent(ids[i]));
  } catch { /* some viewers of local files forbid it */ }
  redraw();
}
function near(i) {
  const grid = make("div", "near");
  for (const j of neighbours[i]) {
    const button = make("button");
    button.type = "button"; button.title = ids[j]; button.setAttribute("aria-label", ids[j]);
    if (colour) button.style.borderColor = paint(colour, level(colour, j));
    if (pictures && pictures[j]) {
      const photo = make("img");
      photo.alt = ""; photo.src = PREFIX + pictures[j];
      button.append(photo);
    } else button.textContent = ids[j];
    button.onclick = () => { pin(j, true); (card.querySelector(".near button") || canvas).focus(); };
    button.onmouseenter = button.onfocus = () => halo(over, j);
    button.onmouseleave = button.onblur = () => halo(over, hover);
    grid.append(button);
  }
  card.append(make("h4", "", "Nearest embeddings"), grid);
}
function walk(dx, dy) {  // to the point that lies nearest within 45 degrees of the arrow
  const from = hover >= 0 ? hover : pinned;
  if (from < 0) { point(nearest(width / 2, height / 2, 1e5)); return; }
  let best = -1, least = Infinity;
  for (let i = 0; i < n; i++) {
    if (i === from || !shown[i] || !matched[i]) continue;
    const a = x[i] - x[from], b = y[i] - y[from], along = a * dx + b * dy, aside = Math.abs(a * dy - b * dx);
    if (along <= 0 || aside > along) continue;
    const cost = along + 2 * aside;
    if (cost < least) { least = cost; best = i; }
  }
  if (best >= 0) { reveal(best); point(-1); point(best); }
}

// which points
function filter() {
  let visible = 0, found = 0;
  const words = query.toLowerCase();
  const levels = new Map(fields.filter(field => field.kind === "category")
    .map(field => [field, field.levels.map(text => text.toLowerCase().includes(words))]));
  const has = (field, i) => field.kind === "category" ? field.codes[i] >= 0 && levels.get(field)[field.codes[i]]
    : field.kind === "text" && field.values[i].toLowerCase().includes(words);
  for (let i = 0; i < n; i++) {
    shown[i] = 1;
    for (const [field, off] of hidden)
      if (off.size && field.kind === "category" && off.has(field.codes[i])) { shown[i] = 0; break; }
    matched[i] = !words || ids[i].toLowerCase().includes(words) || fields.some(field => has(field, i)) ? 1 : 0;
    visible += shown[i]; found += shown[i] & matched[i];
  }
  if (hover >= 0 && !(shown[hover] && matched[hover])) point(-1);
  const all = visible === n ? "" : ` of ${count(n)}`;
  one(".count").textContent = words ? `${count(found)} of ${count(visible)} match` : `${count(visible)}${all} points`;
  redraw();
}
function key() {
  legend.replaceChildren();
  legend.hidden = !colour;
  if (!colour) return;
  const head = make("header"), off = hidden.get(colour);
  head.append(make("span", "", colour.name));
  legend.append(head);
  if (colour.kind === "number") {
    const bar = make("div", "scale"), ends = make("div", "ends");
    bar.style.background = `linear-gradient(90deg, ${SCALE.join(", ")})`;
    ends.append(make("span", "", String(colour.low)), make("span", "", String(colour.high)));
    legend.append(bar, ends);
    return;
  }
  const many = new Map();
  for (const code of colour.codes) many.set(code, (many.get(code) || 0) + 1);
  const places = colour.levels.map((_, place) => place).concat(many.has(-1) ? [-1] : []);
  const all = make("button", "", "show all");
  all.type = "button"; all.onclick = () => { off.clear(); update(); };
  head.append(all);
  const list = make("ul"), buttons = new Map();
  const update = () => {
    all.hidden = !off.size;
    for (const [place, button] of buttons) button.setAttribute("aria-pressed", !off.has(place));
    filter();
  };
  for (const place of places) {
    const item = make("li"), button = make("button");
    button.type = "button";
    button.append(dot(colour, place), make("span", "what", place < 0 ? "unlabelled" : colour.levels[place]), make("span", "many", count(many.get(place) || 0)));
    button.onclick = event => {
      if (event.shiftKey) {
        const only = off.size === places.length - 1 && !off.has(place);
        off.clear();
        if (!only) places.forEach(other => other !== place && off.add(other));
      } else if (!off.delete(place)) off.add(place);
      update();
    };
    buttons.set(place, button);
    item.append(button); list.append(item);
  }
  legend.append(list);
  update();
}
function colourBy(field) {
  colour = field;
  stamps.clear(); key(); filter();
  if (pinned >= 0) pin(pinned);
}
function setTiled(on) {
  tiled = on ? [] : null;
  one(".tools .pictures")?.setAttribute("aria-pressed", on);
  redraw();
}
