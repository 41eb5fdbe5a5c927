// Drawing: points, thumbnails, the window onto the plane.
// Points are blended into an array of pixels, which is far faster than as many canvas calls.
const MARGIN = 24;  // around the stage, so that no point needs clipping
let stamps = new Map(), stamped = "", ink = {}, paper = null, pixels = null;
const bytes = new Uint8ClampedArray(4), word = new Uint32Array(bytes.buffer);
function look() {
  const style = getComputedStyle(root);
  ink = {card: style.getPropertyValue("--card").trim() || "#fff", soft: style.getPropertyValue("--soft").trim() || "#888"};
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.fillStyle = ink.card; pen.fillRect(0, 0, 1, 1);
  bytes.set(pen.getImageData(0, 0, 1, 1).data);
  ink.paper = word[0];
  stamps.clear(); redraw();
}
function stamp(place, r) {  // the pixels that a point covers: where, which colour, how much of 256
  let mark = stamps.get(place);
  if (mark) return mark;
  const half = Math.ceil(1.3 * r + 1), side = 2 * half + 1;
  const small = document.createElement("canvas");
  small.width = small.height = side;
  const edge = small.getContext("2d", {willReadFrequently: true});
  trace(edge, shape(colour, place), half + 0.5, half + 0.5, r);
  edge.fillStyle = paint(colour, place); edge.fill();
  edge.lineWidth = Math.min(1.6, 0.25 * r); edge.strokeStyle = ink.card; edge.stroke();
  const {data} = edge.getImageData(0, 0, side, side);
  mark = {offset: [], colour: [], cover: []};
  for (let k = 0; k < side * side; k++) if (data[4 * k + 3]) {
    mark.offset.push((Math.floor(k / side) - half) * paper.width + k % side - half);
    bytes.set([data[4 * k], data[4 * k + 1], data[4 * k + 2], 0]);
    mark.colour.push(word[0]);
    mark.cover.push(Math.round(0.9 * 256 * data[4 * k + 3] / 255));
  }
  stamps.set(place, mark);
  return mark;
}
function blend(mark, at, share) {
  const {offset, colour, cover} = mark;
  for (let k = 0; k < offset.length; k++) {
    const to = at + offset[k], a = cover[k] * share | 0, b = 256 - a, under = pixels[to], over = colour[k];
    pixels[to] = 0xff000000 | ((over & 0xff00ff) * a + (under & 0xff00ff) * b) >>> 8 & 0xff00ff
      | ((over & 0xff00) * a + (under & 0xff00) * b) >>> 8 & 0xff00;
  }
}
function redraw() { if (!frame) frame = requestAnimationFrame(draw); }
function draw(now) {
  frame = 0;
  if (!(fitted > 0)) return;  // not laid out yet: the stage will tell its size
  if (flight) fly(now);
  const ratio = devicePixelRatio || 1;
  const base = n < 400 ? 5.5 : n < 3000 ? 4.5 : n < 8000 ? 3.5 : 2.8;
  const r = Math.round(4 * ratio * Math.min(8, base * Math.min(2, Math.max(1, zoom / fitted) ** 0.3))) / 4;
  const margin = Math.ceil(MARGIN * ratio), w = canvas.width + 2 * margin, h = canvas.height + 2 * margin;
  if (!paper || paper.width !== w || paper.height !== h) {
    paper = new ImageData(w, h);
    pixels = new Uint32Array(paper.data.buffer);
    stamps.clear();
  }
  const key = `${r} ${fields.indexOf(colour)}`;
  if (key !== stamped) { stamps.clear(); stamped = key; }
  pixels.fill(ink.paper);
  // The faint below the found, and those without a level below the others.
  for (const found of query ? [0, 1] : [1]) for (const levelled of colour ? [false, true] : [true]) {
    for (const i of order) {
      if (!shown[i] || matched[i] !== found) continue;
      const place = level(colour, i);
      if ((place >= 0) !== levelled) continue;
      const px = shift[0] + zoom * x[i], py = shift[1] - zoom * y[i];
      if (px < -9 || py < -9 || px > width + 9 || py > height + 9) continue;
      blend(stamp(place, r), (Math.round(py * ratio) + margin) * w + Math.round(px * ratio) + margin, found ? 1 : 0.12);
    }
  }
  pen.putImageData(paper, -margin, -margin);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  if (tiled) tiles();
  halo(over, hover); halo(ring, pinned);
}
function halo(element, i) {
  element.hidden = i < 0 || !shown[i];
  if (i >= 0) element.style.transform = `translate(${shift[0] + zoom * x[i]}px, ${shift[1] - zoom * y[i]}px)`;
}
function tiles() {  // thumbnails in a fixed order of rank, each where none of a higher rank is near
  const side = Math.max(44, Math.min(96, Math.sqrt(width * height / 220)));
  const taken = new Map();
  tiled = [];
  const cell = (a, b) => a * 1e6 + b;
  for (const i of order) {
    if (!shown[i] || !matched[i] || !pictures[i]) continue;
    const px = shift[0] + zoom * x[i], py = shift[1] - zoom * y[i];
    const a = Math.floor((zoom * x[i]) / side), b = Math.floor((zoom * y[i]) / side);
    let free = true;
    for (let da = -1; free && da < 2; da++) for (let db = -1; free && db < 2; db++) {
      const other = taken.get(cell(a + da, b + db));
      if (other !== undefined && Math.abs(zoom * (x[other] - x[i])) < side && Math.abs(zoom * (y[other] - y[i])) < side) free = false;
    }
    if (!free) continue;
    taken.set(cell(a, b), i);
    if (px < -side || py < -side || px > width + side || py > height + side) continue;
    const photo = image(i);
    if (!photo.complete || !photo.naturalWidth) continue;
    const scale = (side - 8) / Math.max(photo.naturalWidth, photo.naturalHeight);
    const w = photo.naturalWidth * scale, h = photo.naturalHeight * scale;
    tiled.push([i, px, py, w / 2, h / 2]);
    pen.fillStyle = colour ? paint(colour, level(colour, i)) : ink.soft;
    pen.beginPath(); pen.roundRect(px - w / 2 - 2.5, py - h / 2 - 2.5, w + 5, h + 5, 5); pen.fill();
    pen.save();
    pen.beginPath(); pen.roundRect(px - w / 2, py - h / 2, w, h, 3); pen.clip();
    pen.drawImage(photo, px - w / 2, py - h / 2, w, h);
    pen.restore();
  }
}
function image(i) {
  let photo = photos.get(i);
  if (!photo) {
    if (photos.size > 3000) photos.clear();
    photo = new Image();
    photo.onload = redraw;
    photo.src = PREFIX + pictures[i];
    photos.set(i, photo);
  }
  return photo;
}

// the view
function fit() {
  const {x: xs, y: ys} = planes[plane];
  const most = values => values.reduce((a, b) => Math.max(a, b), 0);
  const w = most(xs) || 1, h = most(ys) || 1;
  fitted = zoom = 0.9 * Math.min(width / w, height / h);
  shift = [(width - zoom * most(xs)) / 2, (height + zoom * most(ys)) / 2];
  redraw();
}
function zoomBy(factor, px = width / 2, py = height / 2) {
  const next = Math.min(400 * fitted, Math.max(0.4 * fitted, zoom * factor));
  shift = [px - (px - shift[0]) * next / zoom, py - (py - shift[1]) * next / zoom];
  zoom = next; redraw();
}
function pan(dx, dy) { shift = [shift[0] + dx, shift[1] + dy]; redraw(); }
function reveal(i) {  // keeps a walked-to or linked point on the stage
  const px = shift[0] + zoom * x[i], py = shift[1] - zoom * y[i];
  if (px < 20 || py < 20 || px > width - 20 || py > height - 20) pan(width / 2 - px, height / 2 - py);
}
function resize() {
  const first = !width, keep = fitted && zoom / fitted;
  const middle = first ? null : [(width / 2 - shift[0]) / zoom, (height / 2 - shift[1]) / zoom];
  [width, height] = [stage.clientWidth, stage.clientHeight];
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
  fit();
  if (!first) {
    zoom = fitted * keep;
    shift = [width / 2 - zoom * middle[0], height / 2 - zoom * middle[1]];
  }
  redraw();
}
function fly(now) {
  const t = Math.min(1, (now - flight.start) / 600), ease = t * t * (3 - 2 * t);
  for (let i = 0; i < n; i++) {
    x[i] = flight.x[i] + ease * (planes[plane].x[i] - flight.x[i]);
    y[i] = flight.y[i] + ease * (planes[plane].y[i] - flight.y[i]);
  }
  if (t < 1) redraw(); else flight = null;
}
function project(k) {
  plane = k;
  for (const button of root.querySelectorAll("[data-plane]"))
    button.setAttribute("aria-pressed", +button.dataset.plane === k);
  point(-1);
  flight = {start: still.matches ? -1e9 : performance.now(), x: x.slice(), y: y.slice()};
  fit();
}
