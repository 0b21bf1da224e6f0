"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

/** An element with its properties, and children of elements and text. Text is never read as HTML. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// DataTables sorts, filters and opens rows. Numbers go by the exact value, and none is last either way.

const none = (sign) => (a, b) => (a === null || b === null ? (a === null) - (b === null) : sign * (a - b));
const order = { pre: (text) => (text === "" ? null : Number(text)), asc: none(1), desc: none(-1) };
DataTable.type("value", { order });
DataTable.ext.errMode = "throw"; // not a box on the screen
const options = {
  columnDefs: [
    { targets: "method", searchable: true },
    { targets: "_all", searchable: false },
    { targets: "down", orderSequence: ["desc", "asc", ""] },
    { targets: "number", type: "value" },
    { targets: "name", type: "html-utf8" },
  ],
  autoWidth: false,
  layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
  order: [],
  orderClasses: false,
  orderIndicators: false,
  paging: false,
  tabIndex: -1, // a head has a button of its own
};

const tables = new Map();

/** DataTables' view of a section's table, and of its column of methods; made once, because that takes some milliseconds. */
function view(section) {
  if (!tables.has(section)) {
    const table = new DataTable(section.querySelector("table"), options);
    tables.set(section, { table, method: table.column(".method") });
  }
  return tables.get(section);
}

// Filtering: a table that has no row left goes as a whole.

const sections = all("section[data-dataset]");
const fields = all(".filters input, .filters select");

function filter() {
  const [words, ...chosen] = fields.map((field) => field.value);
  let [rows, shown] = [0, 0];
  for (const section of sections) {
    const values = [section.dataset.dataset, section.dataset.student, section.dataset.recipe];
    section.hidden = !chosen.every((value, i) => !value || value === values[i]);
    if (section.hidden) continue;
    const { table, method } = view(section);
    if (method.search() !== words) method.search(words).draw();
    const left = table.page.info().recordsDisplay;
    section.hidden = !left;
    rows += left;
    shown += left > 0;
  }
  const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
  document.querySelector(".found").textContent = `${count(rows, "row")} in ${count(shown, "table")}`;
}

// A row opens: its runs, and their curves.

function toggle(button) {
  const parent = button.closest("tr");
  const row = view(button.closest("section")).table.row(parent);
  const open = row.child.isShown();
  button.setAttribute("aria-expanded", String(!open));
  if (open) {
    row.child.remove();
    button.removeAttribute("aria-controls");
    return;
  }
  const details = data.rows[parent.dataset.row];
  const inside = make("div");
  const facts = [`configuration ${details.config}`].concat(details.exits ? `exits: ${details.exits}` : []);
  inside.append(make("p", {}, facts.join(" · ")));
  const drawn = details.runs.filter((run) => run.curve);
  inside.append(drawn.length ? figure(drawn) : make("p", {}, "No curve: no validation split, or no epochs.csv at hand."));
  inside.append(make("ul", { className: "runs" }, ...details.runs.map(card)));
  row.child(inside, "detail").show();
  parent.nextElementSibling.id = `row${parent.dataset.row}`;
  button.setAttribute("aria-controls", parent.nextElementSibling.id);
}

function card(run) {
  const reached = run.accuracy ? `${Number(run.accuracy).toFixed(2)} %` : "failed";
  const list = make("dl");
  const facts = { run: run.id, teacher: run.teacher, commit: run.commit, parameters: run.parameters };
  Object.assign(facts, { overrides: run.overrides, accuracy: run.accuracy, error: run.error, "not counted": run.aside, origin: run.origin });
  for (const [name, value] of Object.entries(facts)) {
    if (value) list.append(make("dt", {}, name), make("dd", {}, value));
  }
  const found = make("li", {}, make("h3", {}, `seed ${run.seed}: ${reached}`), list);
  if (run.command) {
    const shown = make("pre", {}, make("code", {}, run.command));
    const button = make("button", { type: "button", className: "copy" }, "Copy command");
    button.addEventListener("click", () => copy(shown, button));
    found.append(shown, button);
  }
  return found;
}

async function copy(shown, button) {
  let done = true;
  try {
    await navigator.clipboard.writeText(shown.textContent);
  } catch {
    getSelection().selectAllChildren(shown); // no right to the clipboard: the old way, else the user's own keys
    done = document.execCommand("copy");
  }
  button.textContent = done ? "Copied" : "Selected";
  setTimeout(() => (button.textContent = "Copy command"), 2000);
}

// Drawing, at the width that there is, so that letters keep their size on a phone.

function figure(runs) {
  const place = make("div");
  const keys = runs.map((run, i) => make("span", { className: `key series${i % 6}` }, `seed ${run.seed}`));
  const found = make("figure", {}, place, make("figcaption", {}, "Accuracy on the validation split, %, by images seen", ...keys));
  let width = 0;
  new ResizeObserver(() => {
    if (place.clientWidth && place.clientWidth !== width) {
      width = place.clientWidth;
      place.replaceChildren(draw(runs, width));
    }
  }).observe(place);
  return found;
}

function svg(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const short = new Intl.NumberFormat("en", { notation: "compact" });

/** Round numbers from low to high, about `most` of them. */
function ticks(low, high, most) {
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((size) => size >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + step / 1e6; i++) found.push(Number((i * step).toFixed(6)));
  return found;
}

function draw(runs, width) {
  const curves = runs.map((run) => {
    const images = data.images[run.curve[0]];
    return run.curve.slice(1).map((value, i) => [images[i], value / 100]);
  });
  const points = curves.flat();
  const values = points.map((point) => point[1]);
  const right = Math.max(...points.map((point) => point[0]));
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (low === high) [low, high] = [low - 1, high + 1];
  const height = 220;
  const box = { left: 44, right: width - 12, top: 10, bottom: height - 24 };
  const x = (images) => box.left + (images / right) * (box.right - box.left);
  const y = (value) => box.bottom - ((value - low) / (high - low)) * (box.bottom - box.top);
  const last = runs.map((run, i) => `seed ${run.seed} ${curves[i].at(-1)[1]}`).join(", ");
  const found = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img" });
  found.setAttribute("aria-label", `Validation accuracy by images seen, up to ${right}. At the end: ${last}.`);
  for (const value of ticks(low, high, 5)) {
    found.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y(value), y2: y(value) }));
    found.append(svg("text", { x: box.left - 6, y: y(value) + 4, "text-anchor": "end" }, value));
  }
  for (const images of ticks(0, right, Math.min(10, width / 70))) {
    found.append(svg("text", { x: x(images), y: height - 6, "text-anchor": "middle" }, short.format(images)));
  }
  curves.forEach((curve, i) => {
    const series = `series${i % 6}`;
    const path = curve.map(([images, value]) => `${x(images).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    found.append(svg("polyline", { class: `curve ${series}`, points: path }));
    const [images, value] = curve.at(-1);
    found.append(svg("circle", { class: series, cx: x(images), cy: y(value), r: 3 }));
  });
  return found;
}

// Light and dark: what the system says, until the user says something else.

const root = document.documentElement;
const theme = document.getElementById("theme");
const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function show(chosen) {
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  theme.textContent = dark() ? "Light colours" : "Dark colours";
}

let stored = null;
try {
  stored = localStorage.getItem("kdbench.theme");
} catch {
  // A page from a file may have no storage.
}
show(stored);
theme.hidden = false;
theme.addEventListener("click", () => {
  show(dark() ? "light" : "dark");
  try {
    localStorage.setItem("kdbench.theme", root.dataset.theme);
  } catch {
    // It holds for this visit then.
  }
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show());

for (const field of fields) for (const kind of ["input", "change"]) field.addEventListener(kind, filter); // some say one only
for (const filters of all(".filters")) filters.hidden = false;
if (fields.some((field) => field.value)) filter(); // a browser may keep them over a reload
addEventListener("click", ({ target }) => {
  const button = target.closest("tbody .method > button");
  if (button) toggle(button);
});

// A board may have a hundred tables: one after the other, so that the page answers meanwhile.
const waiting = [...sections];
(function next() {
  if (!waiting.length) return;
  view(waiting.shift());
  setTimeout(next);
})();
