// What the reader does: pointer, wheel, keys, buttons, links.
const fingers = new Map();
let travelled = 0;
const spot = event => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
canvas.onpointerdown = event => {
  if (event.button) return;
  canvas.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, spot(event));
  if (fingers.size === 1) travelled = 0;
};
canvas.onpointermove = event => {
  const [px, py] = spot(event), before = fingers.get(event.pointerId);
  if (!before) { point(nearest(px, py, 14)); return; }
  const others = [...fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
  if (others.length) {
    const [qx, qy] = others[0];
    zoomBy(Math.hypot(px - qx, py - qy) / (Math.hypot(before[0] - qx, before[1] - qy) || 1), qx, qy);
  } else pan(px - before[0], py - before[1]);
  travelled += Math.hypot(px - before[0], py - before[1]) + others.length * 9;
  if (travelled > 4) { canvas.classList.add("moving"); point(-1); }
  fingers.set(event.pointerId, [px, py]);
};
canvas.onpointerup = canvas.onpointercancel = event => {
  const tap = fingers.delete(event.pointerId) && event.type === "pointerup" && travelled <= 4;
  if (!fingers.size) canvas.classList.remove("moving");
  if (tap) pin(nearest(...spot(event), event.pointerType === "touch" ? 26 : 14));
};
canvas.onpointerleave = () => point(-1);
canvas.onblur = () => point(-1);
canvas.ondblclick = event => zoomBy(2, ...spot(event));
canvas.addEventListener("wheel", event => {
  if (!alone && !event.ctrlKey) return;  // a report must scroll
  event.preventDefault();
  point(-1);
  const pixels = event.deltaY * (event.deltaMode ? 18 : 1);
  zoomBy(Math.exp(-Math.max(-120, Math.min(120, pixels)) * 0.0022), ...spot(event));
}, {passive: false});
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]};
canvas.onkeydown = event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const arrow = ARROWS[event.key];
  if (arrow && event.shiftKey) { point(-1); pan(-60 * arrow[0], 60 * arrow[1]); }
  else if (arrow) walk(...arrow);
  else if (event.key === "Enter" || event.key === " ") { if (hover >= 0) pin(hover); }
  else if (event.key === "Escape") { if (hover >= 0) point(-1); else pin(-1); }
  else if (event.key === "+" || event.key === "=") { point(-1); zoomBy(1.3); }
  else if (event.key === "-") { point(-1); zoomBy(1 / 1.3); }
  else if (event.key === "0") { point(-1); fit(); }
  else return;
  event.preventDefault();
};
root.addEventListener("keydown", event => {
  if (event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") { event.preventDefault(); search.focus(); }
  else if (event.key === "p" && pictures) setTiled(!tiled);
});
search.oninput = () => { query = search.value.trim(); filter(); };
search.onkeydown = event => {
  if (event.key === "Escape") { search.value = query = ""; filter(); canvas.focus(); }
  if (event.key !== "Enter" || !query) return;
  let first = ids.findIndex((id, i) => shown[i] && id === query);
  if (first < 0) first = ids.findIndex((_, i) => shown[i] && matched[i]);
  if (first >= 0) pin(first, true);
};
if (select) select.onchange = () => colourBy(fields.find(field => field.name === select.value) || null);
for (const button of root.querySelectorAll("[data-plane]")) button.onclick = () => project(+button.dataset.plane);
for (const button of root.querySelectorAll("[data-zoom]"))
  button.onclick = () => +button.dataset.zoom ? zoomBy(+button.dataset.zoom) : fit();
one(".tools .pictures")?.addEventListener("click", () => setTiled(!tiled));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", look);
function follow() {  // #point=ID
  const match = location.hash.match(/^#point=(.*)$/);
  if (!match) return;
  let id = match[1];
  try { id = decodeURIComponent(id); } catch { /* a stray % is part of the name */ }
  const found = ids.indexOf(id);
  if (found >= 0) pin(found, true);
}

new ResizeObserver(resize).observe(stage);
resize(); look(); key(); filter();
if (alone) { follow(); addEventListener("hashchange", follow); }
root.dataset.ready = "";
