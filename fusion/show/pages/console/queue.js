// Visits that wait for a person, and decisions that have not taken effect yet.
import { $, age, ahead, badge, look, money, option, post, short, trouble, user, visitPath } from "./shop.js";
import { known, n, t } from "./texts.js";

const { make } = Page;
let rows = [], proposals = [], counting = null, known_visits = null;
export const waiting = () => rows;
export const proposalOf = (visit) => proposals.find((row) => row.visit === visit) || null;
const openVisit = (visit) => document.dispatchEvent(new CustomEvent("open-visit", { detail: visit }));

// ---- the queue ----
const kindOf = (row) => row.disputed ? "disputed" : !row.account ? "no credential" : (row.reasons[0] || {}).kind ? "goods" : "other";
const FILTERS = ["all", "goods", "no credential", "disputed", "other"];
const SORTS = { oldest: (a, b) => a.ms - b.ms, amount: (a, b) => b.total - a.total, newest: (a, b) => b.ms - a.ms };
$("queue-filter").append(...FILTERS.map((filter) => option(filter, t(`filter ${filter}`))));
$("queue-sort").append(...Object.keys(SORTS).map((sort) => option(sort, t(`sort ${sort}`))));
for (const id of ["queue-filter", "queue-sort"]) $(id).addEventListener("change", draw);
const shownRows = () => {
  const filter = $("queue-filter").value;
  return rows.filter((row) => filter === "all" || kindOf(row) === filter).sort(SORTS[$("queue-sort").value]);
};
/* The next visit to look at: not `visit`, and none that is being decided. */
export const after = (visit) => shownRows().find((row) => row.visit !== visit && !row.proposal);

const title = document.title;
export function draw() {
  const list = shownRows(), undecided = rows.filter((row) => !row.proposal).length;
  document.title = undecided ? `(${undecided}) ${title}` : title;
  $("waiting").textContent = t("n for review", { n: undecided });
  $("waiting").className = `pill ${undecided ? "warn" : "good"}`;
  $("reviews-count").textContent = rows.length ? `${n(rows.length, "visit")}, ${money(rows.reduce((sum, row) => sum + row.total, 0))}` : "";
  $("queue-tools").hidden = rows.length < 2;
  const focused = document.activeElement && document.activeElement.dataset.visit;
  $("reviews").replaceChildren(...(list.length ? list.map((row) => make("li", {}, make("button", { type: "button", "data-visit": row.visit, title: row.visit, on: { click: () => openVisit(row.visit) } },
    make("span", { class: "name" }, badge(look(row.visit, row.account)), ` ${short(row.visit, row.account)}`), make("b", {}, money(row.total)),
    make("span", { class: "soft" }, `${n(row.pieces, "piece")}${row.ms ? ` \u00b7 ${t("age", { age: age(row.ms) })}` : ""}`), make("span", { class: "soft right" }, row.proposal ? t("being decided", { by: row.proposal.by }) : ""),
    make("span", { class: "reason" }, row.disputed ? `! ${t("filter disputed")}` : row.reason || ""))))
    : [make("li", { class: "empty" }, rows.length ? t("filter hides all") : `\u2713 ${t("nothing waits")}`)]));
  if (focused) focus(focused);
}
// The list is drawn again with every change; the keyboard's focus stays on the same visit.
export const focus = (visit) => { const all = [...$("reviews").querySelectorAll("button")], row = all.find((button) => button.dataset.visit === visit) || all[0]; if (row) row.focus(); };
setInterval(() => { if (rows.length) draw(); }, 30000);

// ---- sound, for those who want it ----
let context = null;
$("sound").addEventListener("change", () => { if ($("sound").checked) { context = context || new AudioContext(); ring(); } });
function ring() {
  if (!context || !$("sound").checked) return;
  const tone = context.createOscillator(), volume = context.createGain(), at = context.currentTime;
  tone.frequency.value = 880;
  volume.gain.setValueAtTime(0.15, at); volume.gain.exponentialRampToValueAtTime(0.001, at + 0.5);
  tone.connect(volume).connect(context.destination);
  tone.start(at); tone.stop(at + 0.5);
}

// ---- what was asked for and has not taken effect yet ----
async function act(row, verb) {
  try { await post(visitPath(row.visit, `/${verb}`), { number: row.number }); } catch (error) { trouble(error.message); }
}
export const secondsLeft = (row) => Math.max(0, Math.ceil((row.due_ms - Date.now() - ahead()) / 1000));
export const undo = (row) => act(row, "withdraw"), agree = (row) => act(row, "second");
export const proposalText = (row) => `${row.by}: ${t(`did ${row.decision}`)} \u00b7 ${money(row.before)} \u2192 ${money(row.after)}`;
export const proposalState = (row) => row.state === "waiting" ? t("waits for a second person") : row.state === "counting" ? t("takes effect", { s: secondsLeft(row) }) : known(`proposal ${row.state}`, row.state);
function drawProposals() {
  $("proposals").hidden = !proposals.length;
  const held = document.activeElement && document.activeElement.dataset.proposal;
  $("proposals").replaceChildren(...proposals.map((row) => make("li", {}, make("p", {}, make("b", {}, short(row.visit, (rows.find((one) => one.visit === row.visit) || {}).account)), ` ${proposalText(row)} `, make("small", { class: "soft" }, `${proposalState(row)}${row.seconded_by ? `, ${row.seconded_by}` : ""}`)),
    row.state === "waiting" && row.by !== user ? make("button", { type: "button", class: "plain", "data-proposal": `${row.visit} agree`, on: { click: () => agree(row) } }, t("agree")) : null,
    make("button", { type: "button", class: "plain", "data-proposal": `${row.visit} undo`, on: { click: () => undo(row) } }, t(row.by === user ? "undo" : "refuse")))));
  if (held) { const again = $("proposals").querySelector(`[data-proposal="${CSS.escape(held)}"]`); if (again) again.focus(); }
  clearTimeout(counting);
  if (proposals.some((row) => row.state === "counting")) counting = setTimeout(drawProposals, 1000);
}
export const handlers = {
  reviews(list) {
    rows = list;
    const visits = new Set(list.map((row) => row.visit));
    if (known_visits && [...visits].some((visit) => !known_visits.has(visit))) ring();
    known_visits = visits;
    draw();
    document.dispatchEvent(new CustomEvent("books"));
  },
  proposals(list) { proposals = list; drawProposals(); draw(); document.dispatchEvent(new CustomEvent("books")); },
};
