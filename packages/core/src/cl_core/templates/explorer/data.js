// What is known of the points, and what a value looks like.
const root = document.currentScript.closest(".explorer");
const one = selector => root.querySelector(selector);
const data = JSON.parse(one('script[type="application/json"]').textContent);
const alone = "alone" in root.dataset;
const {ids, planes, fields, pictures, neighbours, palette} = data;
const n = ids.length, NONE = "#8b93a1", PREFIX = "data:image/webp;base64,";
const SHAPES = ["circle", "diamond", "square", "cross", "triangle"];
const SCALE = ["#4a52a8", "#2f87a8", "#35b08b", "#9ccb4c", "#f0d43a"];
const canvas = one("canvas"), stage = one(".stage"), pen = canvas.getContext("2d", {alpha: false, willReadFrequently: true});
const tip = one(".tip"), card = one(".card"), legend = one(".legend"), say = one("[role=status]");
const over = one(".ring.over"), ring = one(".ring.pinned"), search = one("input"), select = one("select");
const still = matchMedia("(prefers-reduced-motion: reduce)");

// State: the view is screen = shift + zoom * point, with y upwards in the data.
const x = Float64Array.from(planes[0].x), y = Float64Array.from(planes[0].y);
const shown = new Uint8Array(n).fill(1), matched = new Uint8Array(n).fill(1);
let plane = 0, colour = fields.find(field => field.kind !== "text") || null, query = "";
let width = 0, height = 0, zoom = 1, fitted = 1, shift = [0, 0];
let hover = -1, pinned = -1, tiled = null, frame = 0, flight = null;
const hidden = new Map(fields.map(field => [field, new Set()]));
const photos = new Map();

// Levels overlap fairly if the points come in no order; those without a level lie behind.
const order = Uint32Array.from({length: n}, (_, i) => i);
for (let i = n - 1, seed = 1; i > 0; i--) {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  const j = seed % (i + 1);
  [order[i], order[j]] = [order[j], order[i]];
}

// what a value looks like
for (const field of fields.filter(field => field.kind === "number")) {
  field.low = Infinity; field.high = -Infinity;
  for (const value of field.values) if (value !== null) {
    field.low = Math.min(field.low, value); field.high = Math.max(field.high, value);
  }
  if (field.low > field.high) field.low = field.high = 0;
}
function level(field, i) {  // place in the legend, -1 for none
  if (!field) return 0;
  if (field.kind === "category") return field.codes[i];
  const value = field.values[i];
  return value === null ? -1 : Math.round(31 * (value - field.low) / (field.high - field.low || 1));
}
function paint(field, place) {
  if (!field) return palette[0];
  if (place < 0) return NONE;
  if (field.kind === "category") return palette[place % palette.length];
  const at = place / 31 * (SCALE.length - 1), left = Math.min(Math.floor(at), SCALE.length - 2);
  const part = (hex, k) => parseInt(hex.slice(1 + 2 * k, 3 + 2 * k), 16);
  const mix = k => Math.round(part(SCALE[left], k) + (at - left) * (part(SCALE[left + 1], k) - part(SCALE[left], k)));
  return `rgb(${mix(0)}, ${mix(1)}, ${mix(2)})`;
}
function shape(field, place) {
  if (!field || field.kind !== "category" || place < 0) return "circle";
  return SHAPES[Math.floor(place / palette.length) % SHAPES.length];
}
function trace(pen, kind, cx, cy, r) {
  pen.beginPath();
  const through = corners => corners.forEach(([a, b]) => pen.lineTo(cx + a * r, cy + b * r));
  if (kind === "circle") pen.arc(cx, cy, r, 0, 2 * Math.PI);
  else if (kind === "diamond") through([[0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]]);
  else if (kind === "square") through([[-.9, -.9], [.9, -.9], [.9, .9], [-.9, .9]]);
  else if (kind === "triangle") through([[0, -1.25], [1.15, .8], [-1.15, .8]]);
  else through([[-.4, -1.2], [.4, -1.2], [.4, -.4], [1.2, -.4], [1.2, .4], [.4, .4], [.4, 1.2], [-.4, 1.2], [-.4, .4], [-1.2, .4], [-1.2, -.4], [-.4, -.4]]);
  pen.closePath();
}
function dot(field, place) {
  const mark = document.createElement("canvas");
  mark.width = mark.height = 32; mark.className = "dot";
  const ink = mark.getContext("2d");
  trace(ink, shape(field, place), 16, 16, 12);
  ink.fillStyle = paint(field, place); ink.fill();
  return mark;
}
function told(field, i) {
  if (field.kind === "category") return field.codes[i] < 0 ? "\u2013" : field.levels[field.codes[i]];
  return field.values[i] === null || field.values[i] === "" ? "\u2013" : String(field.values[i]);
}
function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}
const count = value => value.toLocaleString("en");
