// Receipts, decisions and totals as the books have them: those of today as they come in, and a search in all of them.
import { $, ask, badge, byName, clock, look, moment, money, option, short, store } from "./shop.js";
import { known, n, t } from "./texts.js";

const { make } = Page;
const early = new Map();
let rows = [], today = null;
const openVisit = (visit) => document.dispatchEvent(new CustomEvent("open-visit", { detail: visit }));
const MARKS = { settled: "\u2713", decided: "\u2713", review: "!" };
export const statusText = (row) => `${MARKS[row.status]} ${t(`status ${row.status}`)}`;
const decidedText = (row) => row.by ? `${row.by}: ${t(`did ${row.decision}`)} ${moment(row.decided_ms)}${row.first === row.total ? "" : `, ${money(row.first)} \u2192 ${money(row.total)}`}` : "";

function draw() {
  const expected = [...early.values()].map(([ms, visit, label, status, total, p]) => make("li", { class: "expected" }, make("span", { class: "soft" }, clock(ms)), make("span", {}, short(visit, label)), make("b", {}, money(total)), make("p", {}, `${status === "settled" ? "" : `! ${t("for review")}, `}${t("expected", { p: (100 * p).toFixed(1) })}`)));
  $("bills").replaceChildren(...expected, ...rows.map((row) => make("li", {}, make("span", { class: "soft" }, clock(row.ms)), make("button", { type: "button", class: "link plain-link", title: row.visit, on: { click: () => openVisit(row.visit) } }, short(row.visit, row.account)), make("b", {}, money(row.total)),
    make("p", {}, [statusText(row), known(`paid ${row.paid}`, row.paid), decidedText(row)].filter(Boolean).join(" \u00b7 ")))));
  if (today) $("bills-total").textContent = `${n(today.visits, "visit")}, ${money(today.sales)}${today.waiting ? ` + ${money(today.waiting_amount)} ${t("waiting")}` : ""}`;
}
export const handlers = {
  early(row) { early.set(row[1], row); draw(); },
  books(content) {
    ({ rows, today } = content);
    for (const row of rows) early.delete(row.visit);
    draw();
    if (!$("view-receipts").hidden) search();
    document.dispatchEvent(new CustomEvent("books"));
  },
};
export function forget() { early.clear(); draw(); }

// ---- the search ----
const form = $("search");
form.elements.product.append(option("", t("any")), ...byName().map(([gtin, [name]]) => option(gtin, name)));
form.elements.status.append(...["", "settled", "review", "decided", "disputed"].map((status) => option(status, status ? t(status === "disputed" ? "filter disputed" : `status ${status}`) : t("any"))));
const minor = (text) => { const value = Number(text.trim().replace(",", ".")); return text.trim() && Number.isFinite(value) && value >= 0 ? String(Math.round(value * 10 ** store.exponent)) : ""; };
function query() {
  const values = new URLSearchParams();
  for (const name of ["since", "until", "product", "status", "text"]) if (form.elements[name].value) values.set(name, form.elements[name].value);
  for (const name of ["low", "high"]) if (minor(form.elements[name].value)) values.set(name, minor(form.elements[name].value));
  return values;
}
let searches = 0;
export async function search() {
  const values = query(), mine = ++searches;
  $("receipts-csv").href = `api/receipts.csv?${values}`;
  let found;
  try { found = await ask(`api/receipts?${values}`); } catch (error) { $("found").textContent = error.message; return; }
  if (mine !== searches) return;
  const total = found.rows.filter((row) => row.status !== "review").reduce((sum, row) => sum + row.total, 0);
  $("found").textContent = `${n(found.rows.length, "visit")}, ${money(total)}${found.more ? `. ${t("there are more")}` : ""}`;
  $("receipts-table").replaceChildren(make("thead", {}, make("tr", {}, ...["time", "visit", "pieces", "status", "payment", "total"].map((name) => make("th", { scope: "col", class: name === "total" || name === "pieces" ? "number" : null }, t(name))))),
    make("tbody", {}, ...found.rows.map((row) => make("tr", {}, make("td", {}, moment(row.ms)),
      make("td", {}, make("button", { type: "button", class: "link", title: row.visit, on: { click: () => openVisit(row.visit) } }, badge(look(row.visit, row.account)), ` ${short(row.visit, row.account)}`)),
      make("td", { class: "number" }, String(row.pieces)),
      make("td", {}, statusText(row), row.disputed.length ? ` \u00b7 ! ${t("filter disputed")}` : "", row.by ? make("small", {}, decidedText(row)) : row.reason ? make("small", {}, row.reason) : null),
      make("td", {}, known(`paid ${row.paid}`, row.paid)),
      make("td", { class: "number" }, make("b", {}, money(row.total)), row.discounts ? make("small", {}, t("offers", { amount: money(-row.discounts) })) : null)))));
}
form.addEventListener("submit", (event) => { event.preventDefault(); search(); });
