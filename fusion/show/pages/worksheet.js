"use strict";
// What a person enters before the shelves. Everything stays in this browser until it is saved as a file.
const data = JSON.parse(document.getElementById("data").textContent);
const german = (navigator.language || "").toLowerCase().startsWith("de");
const T = german ? {
  title: "Arbeitsblatt", intro: "Jede Waage: Platz messen, Ware w\u00e4hlen, St\u00fccke z\u00e4hlen, einmal wiegen. Alles bleibt in diesem Browser, bis Sie es speichern.",
  of: (n, all) => `${n} von ${all} fertig`, place: "Platz (cm, Grad)", x: "x", y: "y", z: "H\u00f6he", width: "Breite", depth: "Tiefe", yaw: "Drehung", capacity: "Traglast (g)",
  name: "Name", ware: "Ware", product: "Ware oder GTIN", pieces: "St\u00fcck darauf", weighedPieces: "Gewogen: St\u00fcck", weighed: "Wiegen zusammen (g)", more: "Weitere Ware", remove: "Entfernen",
  done: "Fertig", open: "Wieder \u00f6ffnen", add: "Waage hinzuf\u00fcgen", save: "Waagen und Waren speichern", weights: "Gewichte speichern", clear: "Alles verwerfen",
  sure: "Alles, was hier eingegeben wurde, verwerfen?", empty: "leer", fits: g => `${g} g je St\u00fcck, wie im Katalog`, off: (g, w) => `${g} g je St\u00fcck; im Katalog ${w} g. \u201eGewichte speichern\u201c \u00fcbernimmt das Gewogene.`,
  unknown: "nicht im Katalog", twice: p => `${p}: der Name ist zweimal vergeben`, wrong: p => `${p}: eine Angabe fehlt oder ist falsch`, nothing: "Keine Waage ist eingetragen.",
  next: (f, s) => `${f} gespeichert. Weiter am Rechner: fusion import ${f} ${s} --replace`, plan: "Grundriss mit den Waagen",
} : {
  title: "Worksheet", intro: "For each plate: measure its place, choose the goods, count the pieces, weigh some once. All of it stays in this browser until you save it.",
  of: (n, all) => `${n} of ${all} done`, place: "Place (cm, degrees)", x: "x", y: "y", z: "height", width: "width", depth: "depth", yaw: "turn", capacity: "capacity (g)",
  name: "Name", ware: "Goods", product: "Goods or GTIN", pieces: "Pieces on it", weighedPieces: "Weighed: pieces", weighed: "Weigh together (g)", more: "More goods", remove: "Remove",
  done: "Done", open: "Open again", add: "Add a plate", save: "Save plates and goods", weights: "Save weights", clear: "Discard all",
  sure: "Discard everything that was entered here?", empty: "empty", fits: g => `${g} g a piece, as in the catalogue`, off: (g, w) => `${g} g a piece; the catalogue has ${w} g. \u201cSave weights\u201d takes what was weighed.`,
  unknown: "not in the catalogue", twice: p => `${p}: the name is there twice`, wrong: p => `${p}: an entry is missing or wrong`, nothing: "No plate is entered.",
  next: (f, s) => `${f} is saved. Next, at the computer: fusion import ${f} ${s} --replace`, plan: "Plan of the floor with the plates",
};
document.documentElement.lang = german ? "de" : "en";
const KEY = `fusion worksheet ${data.id}`;
const NUMBERS = ["x", "y", "z", "width", "depth", "yaw", "capacity"];
const byGtin = new Map(data.products.map(p => [p[0].padStart(14, "0"), p]));
const byName = new Map(data.products.map(p => [shown(p), p[0]]));
let plates = restored() || data.plates.map(p => ({ ...p, goods: p.goods.map(([gtin, n]) => ({ product: named(gtin), n: String(n), k: "", g: "" })), done: false }));
let opened = -1;

function shown(product) { return `${product[1]} (${product[0]})`; }
function named(gtin) { const p = byGtin.get(gtin.padStart(14, "0")); return p ? shown(p) : gtin; }
function gtinOf(text) {
  const typed = text.trim();
  if (byName.has(typed)) return byName.get(typed);
  const digits = typed.replace(/[\s-]/g, "");
  if (!/^\d{7,14}$/.test(digits)) return "";
  const known = byGtin.get(digits.padStart(14, "0"));
  return known ? known[0] : digits;
}
function restored() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY));
    return Array.isArray(kept) && kept.every(p => p && typeof p.plate === "string" && Array.isArray(p.goods)) ? kept : null;
  } catch { return null; }
}
function keep() { try { localStorage.setItem(KEY, JSON.stringify(plates)); } catch { /* a private window keeps nothing */ } }
function blank() { return { product: "", n: "", k: "", g: "" }; }
function number(text) { const s = String(text).trim().replace(",", "."); return /^-?\d+(\.\d+)?$/.test(s) ? Number(s) : NaN; }
function whole(text) { return /^\d{1,6}$/.test(String(text).trim()) ? Number(text) : NaN; }
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) key in node && key !== "list" ? (node[key] = value) : node.setAttribute(key, value);
  node.append(...children);
  return node;
}
function wrongIn(plate, key) {
  const value = number(plate[key]);
  if (Number.isNaN(value)) return true;
  if (key === "width" || key === "depth") return value <= 0 || value > 1000;
  if (key === "capacity") return value < 100;
  return key === "yaw" ? Math.abs(value) > 360 : Math.abs(value) >= 100000;
}
function isWrong(plate) {
  return !plate.plate.trim() || NUMBERS.some(key => wrongIn(plate, key))
    || plate.goods.some(each => each.product.trim() && (!gtinOf(each.product) || Number.isNaN(whole(each.n))));
}
function field(text, value, change, options = {}) {
  const input = make("input", { value: value ?? "", inputMode: options.mode || "decimal", autocomplete: "off", ...(options.list ? { list: options.list } : {}) });
  const check = () => input.setAttribute("aria-invalid", String(Boolean(options.wrong && options.wrong())));
  input.addEventListener("input", () => { change(input.value); check(); keep(); summary(); });
  check();
  return make("label", { className: options.wide ? "wide" : "" }, text, input);
}
function weighedText(each, node) {
  const pieces = whole(each.k), grams = number(each.g), product = byGtin.get(gtinOf(each.product).padStart(14, "0"));
  node.className = "note";
  node.textContent = each.product.trim() && !product ? T.unknown : "";
  if (!(pieces > 0) || !(grams > 0) || !product) return;
  const piece = Math.round(10 * grams / pieces) / 10, far = Math.abs(piece - product[2]) > Math.max(3 * product[3], 1);
  node.classList.toggle("off", far);
  node.textContent = far ? T.off(piece, product[2]) : T.fits(piece);
}
function goodsRow(plate, each) {
  const note = make("div", { className: "note", role: "status" });
  const after = () => weighedText(each, note);
  const row = make("div", { className: "row" },
    field(T.product, each.product, v => { each.product = v; after(); }, { mode: "text", list: "goods", wide: true, wrong: () => each.product.trim() && !gtinOf(each.product) }),
    field(T.pieces, each.n, v => { each.n = v; }, { mode: "numeric", wrong: () => each.product.trim() && Number.isNaN(whole(each.n)) }),
    field(T.weighedPieces, each.k, v => { each.k = v; after(); }, { mode: "numeric" }),
    field(T.weighed, each.g, v => { each.g = v; after(); }),
    note);
  after();
  return row;
}
function card(plate, at) {
  if (!plate.goods.length) plate.goods.push(blank());
  const goods = make("fieldset", {}, make("legend", { textContent: T.ware }), ...plate.goods.map(each => goodsRow(plate, each)));
  const more = make("button", { type: "button", textContent: T.more });
  more.onclick = () => { plate.goods.push(blank()); keep(); draw(); };
  const done = make("button", { type: "button", className: "main", textContent: plate.done ? T.open : T.done });
  done.onclick = () => {
    if (!plate.done && isWrong(plate)) { document.getElementById("faults").textContent = T.wrong(plate.plate || "?"); return; }
    plate.done = !plate.done;
    opened = plate.done ? plates.findIndex((p, i) => i > at && !p.done) : at;
    keep(); draw();
    const next = document.querySelector("details[open] summary");
    (next || document.getElementById("save")).focus();
  };
  const remove = make("button", { type: "button", className: "quiet", textContent: T.remove });
  remove.onclick = () => { plates.splice(at, 1); opened = -1; keep(); draw(); document.getElementById("add").focus(); };
  const place = make("fieldset", {}, make("legend", { textContent: T.place }), make("div", { className: "row" },
    field(T.name, plate.plate, v => { plate.plate = v; }, { mode: "text", wrong: () => !plate.plate.trim() }),
    ...NUMBERS.map(key => field(T[key], plate[key], v => { plate[key] = v; plan(); }, { wrong: () => wrongIn(plate, key) }))));
  const node = make("details", { open: at === opened, className: plate.done ? "done" : "" },
    make("summary", {}, make("b", { textContent: plate.plate }), make("span", { textContent: goodsText(plate) })),
    make("div", { className: "inside" }, place, goods, make("div", { className: "row" }, more, done, remove)));
  node.addEventListener("toggle", () => { if (node.open) { opened = at; } else if (opened === at) { opened = -1; } plan(); });
  return node;
}
function goodsText(plate) {
  const there = plate.goods.filter(each => each.product.trim());
  return there.length ? there.map(each => `${each.n || "?"} \u00d7 ${each.product.replace(/ \(\d+\)$/, "")}`).join(", ") : T.empty;
}
function plan() {
  const svg = document.getElementById("plan"), xs = data.floor.map(p => p[0]), ys = data.floor.map(p => p[1]);
  const [x0, y0] = [Math.min(...xs), Math.min(...ys)], [w, h] = [Math.max(...xs) - x0, Math.max(...ys) - y0], edge = 0.03 * Math.max(w, h);
  svg.setAttribute("viewBox", `${x0 - edge} ${-(y0 + h) - edge} ${w + 2 * edge} ${h + 2 * edge}`);
  svg.setAttribute("aria-label", T.plan);
  const shape = (tag, attributes) => { const n = document.createElementNS("http://www.w3.org/2000/svg", tag); for (const k in attributes) n.setAttribute(k, attributes[k]); return n; };
  svg.replaceChildren(shape("polygon", { points: data.floor.map(([x, y]) => `${x},${-y}`).join(" ") }));
  // Plates hang above one another: the open one is drawn last.
  const order = [...plates.keys()].sort((a, b) => (a === opened) - (b === opened));
  order.forEach(i => {
    const p = plates[i];
    const [x, y, pw, pd, yaw] = ["x", "y", "width", "depth", "yaw"].map(key => number(p[key]));
    if ([x, y, pw, pd, yaw].some(Number.isNaN)) return;
    svg.append(shape("rect", { x: x / 100 - pw / 200, y: -y / 100 - pd / 200, width: Math.max(pw / 100, 0), height: Math.max(pd / 100, 0),
      transform: `rotate(${-yaw} ${x / 100} ${-y / 100})`, class: i === opened ? "here" : p.done ? "done" : "" }));
  });
}
function summary() {
  const done = plates.filter(p => p.done).length;
  document.getElementById("bar").max = Math.max(plates.length, 1);
  document.getElementById("bar").value = done;
  document.getElementById("count").textContent = T.of(done, plates.length);
  document.querySelectorAll("#plates details").forEach((node, i) => {
    node.querySelector("summary b").textContent = plates[i].plate;
    node.querySelector("summary span").textContent = goodsText(plates[i]);
  });
  document.getElementById("weights").hidden = !measured().size;
}
function draw() {
  document.getElementById("plates").replaceChildren(...plates.map(card));
  document.getElementById("faults").textContent = "";
  plan(); summary();
}
// Pieces that were weighed, by GTIN: their number and their grams, of all plates together.
function measured() {
  const sums = new Map();
  for (const each of plates.flatMap(p => p.goods)) {
    const gtin = gtinOf(each.product), pieces = whole(each.k), grams = number(each.g);
    if (!byGtin.has(gtin.padStart(14, "0")) || !(pieces > 0) || !(grams > 0)) continue;
    const sum = sums.get(gtin) || { pieces: 0, grams: 0 };
    sums.set(gtin, { pieces: sum.pieces + pieces, grams: sum.grams + grams });
  }
  return sums;
}
function cell(value) { const text = String(value); return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text; }
function saved(name, rows) {
  const url = URL.createObjectURL(new Blob([rows.map(row => row.map(cell).join(",")).join("\n") + "\n"], { type: "text/csv" }));
  const link = make("a", { href: url, download: name });
  document.body.append(link); link.click(); link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
  document.getElementById("next").textContent = T.next(name, "STORE");
}
function tenth(text) { return Math.round(10 * number(text)) / 10; }
document.getElementById("save").onclick = () => {
  const names = plates.map(p => p.plate.trim()), twice = names.find((n, i) => names.indexOf(n) !== i);
  const wrong = plates.find(isWrong);
  const fault = !plates.length ? T.nothing : twice !== undefined ? T.twice(twice) : wrong ? T.wrong(wrong.plate || "?") : "";
  document.getElementById("faults").textContent = fault;
  if (fault) return;
  const rows = [["plate", "x (cm)", "y (cm)", "z (cm)", "width (cm)", "depth (cm)", "yaw (deg)", "capacity (g)", "gtin", "stock"]];
  for (const p of plates) {
    const place = [p.plate.trim(), ...["x", "y", "z", "width", "depth", "yaw"].map(key => tenth(p[key])), Math.round(number(p.capacity))];
    const there = p.goods.filter(each => each.product.trim());
    if (!there.length) rows.push([...place, "", ""]);
    for (const each of there) rows.push([...place, gtinOf(each.product), whole(each.n)]);
  }
  saved(`${data.id}-plates.csv`, rows);
};
document.getElementById("weights").onclick = () => {
  const sums = measured();
  saved(`${data.id}-products.csv`, [["gtin", "name", "weight_g", "weight_sd_g", "price", "vat_rate"], ...data.products.map(p => {
    const sum = sums.get(p[0]);
    return sum ? [p[0], p[1], Math.round(10 * sum.grams / sum.pieces) / 10, ...p.slice(3)] : p;
  })]);
};
document.getElementById("add").onclick = () => {
  const last = plates[plates.length - 1] || { x: 0, y: 0, z: 100, width: 30, depth: 40, yaw: 0, capacity: 20000 };
  plates.push({ ...last, plate: `plate-${plates.length + 1}`, goods: [blank()], done: false });
  opened = plates.length - 1; keep(); draw();
  document.querySelector("details[open] input").focus();
};
document.getElementById("clear").onclick = () => {
  if (!confirm(T.sure)) return;
  try { localStorage.removeItem(KEY); } catch { /* nothing was kept */ }
  location.reload();
};
document.getElementById("title").textContent = `${T.title}: ${data.id}`;
document.getElementById("intro").textContent = T.intro;
for (const id of ["add", "save", "weights", "clear"]) document.getElementById(id).textContent = T[id];
document.getElementById("goods").append(...data.products.map(p => make("option", { value: shown(p) })));
document.title = `${T.title}: ${data.id}`;
draw();
