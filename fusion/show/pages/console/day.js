// A day in figures, beside yesterday and the same day of the week before; what sold, and the shelves now.
import { $, aged, ask, money, product } from "./shop.js";
import { floorAge } from "./floor.js";
import { n, t } from "./texts.js";

const { make, count } = Page;
let today = null, shelves = null;
const share = (part, all) => all ? `${(100 * part / all).toFixed(1)} %` : "\u2013";
const AMOUNTS = ["sales", "basket", "waiting_amount", "waived", "lowered", "owed", "refunded", "written_off", "charged_back"];
const change = (now, before) => before ? `${now >= before ? "+" : "\u2212"}${Math.abs(100 * (now - before) / before).toFixed(0)} %` : "\u2013";

export async function show() {
  const choice = $("day-choice");
  let row;
  try { row = await ask(`api/day${choice.value ? `?day=${choice.value}` : ""}`); } catch (error) { $("day-figures").replaceChildren(make("p", { class: "note" }, error.message)); return; }
  if (!choice.value) { today = row.day; choice.value = row.day; }
  const { figures } = row;
  const beside = (name) => ["yesterday", "week"].map((other) => `${t(`vs ${other}`)} ${change(figures[name], row[other][name])}`).join(", ");
  const figure = (name, value, detail) => make("div", { class: "figure" }, make("div", { class: "name" }, t(name)), make("div", { class: "value" }, value), make("div", { class: "detail" }, detail || ""));
  const lost = ["waived", "lowered", "refunded", "written_off", "charged_back"].filter((name) => figures[name]);
  $("day-figures").replaceChildren(
    figure("sales", money(figures.sales), beside("sales")), figure("visits", count(figures.visits), beside("visits")), figure("basket", money(figures.basket), beside("basket")),
    figure("settled share", share(figures.visits - figures.reviewed, figures.visits), t("of visits", { n: figures.visits })), figure("reviewed share", share(figures.reviewed, figures.visits), figures.waiting ? t("still waiting", { n: figures.waiting, amount: money(figures.waiting_amount) }) : t("none waits")),
    figure("lost", money(lost.reduce((sum, name) => sum + figures[name], 0)), lost.map((name) => `${t(name)} ${AMOUNTS.includes(name) ? money(figures[name]) : figures[name]}`).join(", ") || t("nothing lost")),
    ...(figures.owed ? [figure("owed", money(figures.owed), t("owed detail"))] : []));
  $("sold-csv").href = `api/sold.csv?day=${row.day}`;
  $("sold").replaceChildren(row.sold.length ? make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, t("product")), make("th", { scope: "col", class: "number" }, t("pieces")), make("th", { scope: "col", class: "number" }, t("amount")))),
    make("tbody", {}, ...row.sold.map(([gtin, pieces, amount]) => make("tr", {}, make("td", {}, product(gtin)), make("td", { class: "number" }, count(pieces)), make("td", { class: "number" }, money(amount)))))) : make("p", { class: "soft" }, t("nothing sold")));
  drawShelves();
}
function drawShelves() {
  if ($("view-day").hidden) return;
  aged("shelves-age", ["shelves"], floorAge() === null && shelves ? null : shelves ? shelves.ms : 0);
  const rows = shelves ? shelves.rows : [];
  $("shelves").replaceChildren(rows.length ? make("table", {}, make("tbody", {}, ...rows.map(([plate, gtin, status, pieces]) => make("tr", {}, make("td", {}, `${t("plate")} ${plate}`), make("td", {}, product(gtin)), make("td", {}, `! ${t(`shelf ${status}`)}`), make("td", { class: "number" }, n(pieces, "piece"))))))
    : make("p", { class: "soft" }, shelves ? `\u2713 ${t("shelves fine")}` : t("no data yet")));
}
export const handlers = { shelves(content) { shelves = content; drawShelves(); } };
$("day-choice").addEventListener("change", show);
document.addEventListener("floor-age", drawShelves);
document.addEventListener("books", () => { if (!$("view-day").hidden && $("day-choice").value === today) show(); });
