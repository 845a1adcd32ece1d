// Every camera, plate, gate, clock, broker and provider: how it fares, and since when.
import { $, aged, ask, moment, plates, store } from "./shop.js";
import { floorAge } from "./floor.js";
import { known, n, t } from "./texts.js";

const { make } = Page;
let report = null, books = null;
const bad = () => report ? [...report.cameras, ...report.plates, ...report.links].filter((row) => row[1]) : [];

function summary() {
  const old = floorAge() !== null, faults = bad(), clock = report && report.time ? [report.time] : [];
  const all = [...clock, ...faults.map(([name, fault]) => `${name} ${known(`fault ${fault}`, fault)}`)];
  // What is old is never called fine.
  $("sensors").textContent = !report || old ? t("sensors unknown") : all.length ? `! ${all.slice(0, 4).join(", ")}${all.length > 4 ? ` ${t("and more", { n: all.length - 4 })}` : ""}` : `\u2713 ${t("all fine", { cameras: n(report.cameras.length, "camera"), plates: n(plates.size, "plate") })}`;
  const count = all.length + (books && books.bad ? books.bad : 0);
  $("sensors-bad").hidden = !count;
  $("sensors-bad").textContent = String(count);
}
function draw() {
  if ($("view-health").hidden) return;
  const asOf = floorAge(), old = asOf !== null || !report;
  aged("health-age", [], old ? (report ? report.ms : 0) : null);
  const rows = [];
  const add = (kind, name, fault, since, greyed) => rows.push([kind, name, fault, since, greyed]);
  add("store process", store.name, asOf === null ? "" : "away", asOf === null ? (report ? report.since : null) : asOf || null, false);
  for (const row of books ? books.rows : []) {
    add(row.kind, row.name, row.fault, row.since, false);
    // The books show what is without an answer, not whether the other side is there.
    if (row.kind !== "books") rows[rows.length - 1].push(t("nothing waits"));
  }
  if (report) {
    add("clock", store.timezone, report.time, report.time_since, old);
    for (const [name, fault, since] of report.links) add("link", name, fault, since, old);
    for (const [name, fault, since] of report.cameras) add("camera", name, fault, since, old);
    const faults = new Map(report.plates.map((row) => [row[0], row]));
    for (const name of plates.keys()) { const row = faults.get(name); add("plate", name, row ? row[1] : "", row ? row[2] : report.since, old); }
    for (const [gate, [ms, way]] of Object.entries(report.gates)) add("gate", gate, "", null, old), rows[rows.length - 1].push(ms === null ? t("quiet") : t(`last ${way}`, { time: moment(ms) }));
  }
  // What needs a person first.
  rows.sort((a, b) => Number(Boolean(b[2])) - Number(Boolean(a[2])));
  $("health-table").replaceChildren(make("thead", {}, make("tr", {}, ...["kind", "name", "state", "since"].map((name) => make("th", { scope: "col" }, t(name))))),
    make("tbody", {}, ...rows.map(([kind, name, fault, since, greyed, note]) => make("tr", { class: greyed ? "old" : fault ? "bad-row" : null }, make("td", {}, t(`kind ${kind}`)), make("td", {}, name),
      make("td", {}, greyed ? `${fault ? known(`fault ${fault}`, fault) : t("fine then")}` : fault ? `! ${known(`fault ${fault}`, fault)}` : note || `\u2713 ${t("fine")}`), make("td", {}, since ? moment(since) : "")))));
}
export async function show() {
  try { books = await ask("api/health"); } catch { /* the books are away: the page says so above */ }
  summary(); draw();
}
export const handlers = {
  health(content) { report = { ...content, gates: report ? report.gates : {} }; summary(); draw(); },
  state(now) { if (report) report.gates = now.gates; },
};
document.addEventListener("floor-age", () => { summary(); draw(); });
setInterval(() => { if (!$("view-health").hidden) show(); }, 10000);
