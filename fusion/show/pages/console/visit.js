// One visit: the question that it comes down to, what each choice charges, its evidence and its history; and a decision,
// which is chosen first, booked by a button of its own, and can be taken back for ten seconds.
import { $, ask, badge, byName, clock, look, moment, money, option, picture, plates, post, product, short, store, trouble, user, visitPath } from "./shop.js";
import { after, agree, focus, proposalOf, proposalText, secondsLeft, undo, waiting } from "./queue.js";
import { known, language, n, t } from "./texts.js";

const { make, percent, signed } = Page;
let shown = null, lines = [], choice = null, priced = null, busy = false, timer = null, asked = 0;
const notify = (text, bad) => { $("review-message").textContent = text; $("review-message").classList.toggle("bad", Boolean(bad)); };
// What was charged already is a refund's right to change.
const may = (role) => !store.rights || store.rights.roles.includes(role);
const allowed = () => may(shown.status === "review" ? "decide" : "refund");
const decidable = () => shown && !shown.proposal && shown.status !== "open" && !busy && allowed();

// ---- choices ----
const pieces = (rows) => JSON.stringify(merged(rows).filter((line) => line[1] > 0).map((line) => [line[0], line[1]]).sort());
function choicesOf() {
  const list = shown.question ? shown.question.choices.map((one) => ({ ...one, key: `choice ${JSON.stringify(one.lines)}` })) : [];
  const isReview = shown.status === "review";
  const all = isReview ? list : [];
  if (isReview && !all.some((one) => one.decision === "accept")) all.push({ key: "bill", text: t("the bill"), decision: "accept", lines: null, total: shown.total, discounts: shown.discounts, p: null });
  all.push({ key: "edited", text: t(isReview ? "something else" : "correct the bill"), decision: "correct", lines: null, p: null });
  if (shown.total || isReview) all.push({ key: "waive", text: t(isReview ? "charge nothing" : "refund all"), decision: "waive", lines: null, total: 0, discounts: 0, p: null });
  return all;
}
const fitText = { yes: "fits", barely: "barely fits", no: "does not fit" };
function drawChoices() {
  const rows = choicesOf();
  if (choice && !rows.some((row) => row.key === choice.key)) choice = null;
  const held = document.activeElement && document.activeElement.name === "choice" ? document.activeElement.value : null;
  $("choices").replaceChildren(make("legend", { class: "hidden" }, t("choices")), ...rows.map((row, at) => {
    const input = make("input", { type: "radio", name: "choice", value: row.key, disabled: !decidable() });
    input.checked = choice !== null && choice.key === row.key;
    input.addEventListener("change", () => select(row));
    const goods = row.goods && row.goods.length === 1 ? picture(row.goods[0][0]) : null;
    const amount = row.key === "edited" ? (choice && choice.key === "edited" && priced ? money(priced.total) : "") : money(row.total);
    const stated = heardLines().includes(pieces(row.lines ? row.lines.map(([gtin, count]) => [gtin, count, 0, 1]) : row.decision === "accept" ? shown.lines : [["", 1, 0, 1]]));
    return make("label", { class: "choice" }, input, make("kbd", { "aria-hidden": "true" }, String(at + 1)), goods,
      make("span", { class: "choice-text" }, row.text, row.weight ? make("small", {}, `${grams(row.weight)} `, make("span", { class: `fit ${row.fits}` }, t(fitText[row.fits]))) : null, stated ? make("small", { class: "stated" }, t("shopper says so")) : null),
      row.p === null || row.p === undefined ? make("span", { class: "p-cell" }) : make("span", { class: "p-cell" }, Evidence.bar(row.p), percent(row.p)),
      make("b", { class: "number" }, amount, row.discounts ? make("small", {}, t("offers", { amount: money(-row.discounts) })) : null));
  }));
  const again = [...$("choices").querySelectorAll("input")].find((input) => input.value === held);
  if (again) again.focus();
}
// Bills that follow from what the shopper answered, so that their choice is marked.
const heardLines = () => ((shown.heard || {}).answers || []).filter((one) => one.lines).map((one) => pieces(one.lines.map(([gtin, count]) => [gtin, count, 0, 1])));
const grams = ([change, sd]) => `${signed(Math.round(change)).replace(/^\+0$/, "0")} \u00b1 ${Math.max(1, Math.round(sd))} g`;
function select(row) {
  choice = row; priced = null;
  if (row.lines) fill(row.lines);
  if (row.decision === "accept" || row.key === "waive") lines = merged(shown.lines).map((line) => [...line]);
  drawLines();
  if (row.key === "edited") { $("editing").open = true; reprice(); }
  suggestReason();
  refresh();
}
// Money that changes needs a reason; the likely one is filled in and can be changed.
let suggested = "";
function suggestReason() {
  if ($("reason").value !== suggested) return;
  const amount = amountAfter(), kind = shown.question ? shown.question.kind : "";
  const by_kind = { product: "other_product", quantity: "other_quantity" };
  const fits = amount === null || amount === shown.total ? "" : choice.lines && by_kind[kind] ? by_kind[kind] : amount < shown.total ? "not_taken" : "missed";
  suggested = store.reasons.includes(fits) ? fits : "";
  $("reason").value = suggested;
}
const lacksReason = (amount) => amount !== null && amount !== shown.total && !$("reason").value;
function fill(wanted) {
  const counts = new Map(wanted);
  lines = merged(shown.lines).map((line) => [...line]);
  for (const line of lines) { line[1] = counts.get(line[0]) || 0; counts.delete(line[0]); }
  for (const [gtin, count] of counts) lines.push([gtin, count, null, null]);
}
function amountAfter() {
  if (!choice) return null;
  return choice.key === "edited" ? (priced ? priced.total : null) : choice.total;
}
function refresh() {
  drawChoices();
  const amount = amountAfter(), ready = decidable() && amount !== null;
  $("book").disabled = !ready || lacksReason(amount);
  $("book").textContent = amount === null ? t("choose first") : lacksReason(amount) ? t("reason first") : shown.status === "review" ? t("book", { amount: money(amount) }) : t("book change", { before: money(shown.total), amount: money(amount) });
  const open = shown.proposal;
  $("decide-row").hidden = Boolean(open) || !allowed();
  $("after-row").hidden = !open && shown.status === "review" && !shown.just;
  $("undo").hidden = !open || !["counting", "waiting"].includes(open.state) || !may("decide");
  $("agree").hidden = !open || open.state !== "waiting" || open.by === user || !allowed();
  $("next").hidden = !after(shown.visit);
  clearTimeout(timer);
  if (open) {
    $("undo").textContent = open.by === user ? (open.state === "counting" ? t("undo s", { s: secondsLeft(open) }) : t("undo")) : t("refuse");
    notify(`${proposalText(open)}. ${open.state === "waiting" ? t("waits for a second person") : t("takes effect", { s: secondsLeft(open) })}`);
    timer = setTimeout(refresh, 1000);
  }
}

// ---- the bill, changed by hand ----
// One row for each product, although the books keep pieces at different prices apart: [gtin, pieces, price, sure].
function merged(rows) {
  const found = new Map();
  for (const [gtin, quantity, unit, sure] of rows) {
    const line = found.get(gtin);
    if (line) { line[1] += quantity; line[3] = Math.min(line[3], sure); line[4] += quantity * unit; }
    else found.set(gtin, [gtin, quantity, unit, sure, quantity * unit]);
  }
  return [...found.values()];
}
function changed() {
  const same = pieces(lines) === pieces(shown.lines);
  choice = same ? null : { key: "edited", decision: "correct" };
  priced = null;
  drawLines(); refresh();
  if (!same) reprice();
}
/* What the changed bill charges, at the server's prices, offers and members' prices. */
async function reprice() {
  const mine = ++asked, visit = shown.visit, wanted = billed();
  try {
    const answer = await post(visitPath(visit, "/price"), { lines: wanted });
    if (mine === asked && shown.visit === visit) { priced = answer; suggestReason(); drawLines(); refresh(); }
  } catch (error) { notify(error.message, true); }
}
const billed = () => lines.filter((line) => line[1] > 0).map(([gtin, quantity]) => ({ gtin, quantity }));
function drawLines() {
  const change = (line, by) => {
    line[1] = Math.max(0, line[1] + by);
    changed();
  };
  // Drawn again with every price that comes; the keyboard's focus stays on the same button.
  const held = document.activeElement && document.activeElement.dataset.step;
  const step = (line, by) => make("button", { type: "button", class: "plain", "data-step": `${line[0]} ${by}`, disabled: !decidable(), "aria-label": t(by < 0 ? "one less" : "one more", { product: product(line[0]) }), on: { click: () => change(line, by) } }, by < 0 ? "\u2212" : "+");
  const cost = (line) => {
    const now = priced && choice && choice.key === "edited" ? priced.lines.filter((row) => row[0] === line[0]) : null;
    return now && now.length ? money(now.reduce((sum, row) => sum + row[1] * row[2], 0)) : line[4] !== undefined && pieces([line]) === pieces(shown.lines.filter((row) => row[0] === line[0])) ? money(line[4]) : "";
  };
  $("review-lines").replaceChildren(make("tbody", {}, ...lines.map((line) => make("tr", {}, make("td", {}, picture(line[0]), product(line[0]), make("small", {}, line[0])),
    make("td", { class: `number${line[3] !== null && line[3] < 0.8 ? " low" : ""}` }, line[3] === null ? "" : Evidence.bar(line[3]), line[3] === null ? "" : percent(line[3])),
    make("td", { class: "number" }, make("span", { class: "stepper" }, step(line, -1), make("b", {}, String(line[1])), step(line, 1))),
    make("td", { class: "number" }, cost(line))))));
  const row = (name, amount) => make("tr", {}, make("th", { scope: "row", colspan: 3 }, name), make("td", { class: "number" }, make("b", {}, amount)));
  const total = choice && choice.key === "edited" ? priced : { total: shown.total, discounts: shown.discounts };
  $("review-lines").append(make("tfoot", {}, ...(total ? [total.discounts ? row(t("offers line"), money(-total.discounts)) : null, row(t("total"), money(total.total))] : [row(t("total"), "\u2026")]).filter(Boolean)));
  const again = held && $("review-lines").querySelector(`[data-step="${CSS.escape(held)}"]`);
  if (again) again.focus();
}
$("add-product").append(...byName().map(([gtin, [name]]) => option(gtin, name)));
$("add").addEventListener("click", () => {
  if (!decidable()) return;
  const gtin = $("add-product").value, line = lines.find((row) => row[0] === gtin);
  if (line) line[1]++; else lines.push([gtin, 1, null, null]);
  changed();
});

// ---- what is known ----
function drawHistory() {
  const rows = [];
  const heard = shown.heard || { answers: [] };
  rows.push(...heard.answers.map((one) => [one.ms, `${t(`shopper ${one.stated}`, { goods: one.goods.map(([gtin, count]) => `${signed(count)} ${product(gtin)}`).join(", ") || t("nothing moved") })}${one.after === null ? "" : `, ${t("then right", { before: percent(one.before), after: percent(one.after) })}`}`]));
  if (heard.marked) rows.push([Date.now(), `! ${t("shopper marked")}`]);
  if (shown.disputes && shown.disputes.length) rows.push(...shown.disputes.map(([ms, gtin, count, reason]) => [ms, t("shopper disputes", { n: count, product: product(gtin), reason: known(`dispute ${reason}`, reason) })]));
  rows.push(...(shown.decided || []).map((one) => [one.ms, `${one.by}${one.seconded_by ? ` + ${one.seconded_by}` : ""}: ${t(`did ${one.decision}`)}${one.total === undefined ? "" : `, ${money(one.total)}`}${one.reason ? `, ${known(`reason ${one.reason}`, one.reason)}` : ""}${one.note ? `, \u201c${one.note}\u201d` : ""}`]));
  rows.push(...(shown.proposals || []).filter((one) => one.state === "withdrawn").map((one) => [one.made_ms, `${one.by}: ${t(`did ${one.decision}`)}, ${t("proposal withdrawn")}${one.ended_by && one.ended_by !== one.by ? ` (${one.ended_by})` : ""}`]));
  rows.push(...(shown.payment || []).map(([ms, kind, amount, detail]) => [ms, `${known(`payment ${kind}`, kind)}${amount ? ` ${money(Math.abs(amount))}` : ""}${detail ? `, ${detail}` : ""}`]));
  rows.sort((a, b) => a[0] - b[0]);
  const marked = heard.marked && may("decide") ? make("p", {}, make("button", { type: "button", class: "plain", on: { click: trust } }, t("believe again"))) : null;
  const taken = (shown.moments || []).map(([ms, gtin, count, plate]) => make("li", {}, `${clock(ms)} \u00b7 ${signed(count)} ${product(gtin)}${plate ? ` \u00b7 ${t("plate")} ${plate}` : ""}`));
  $("review-history").replaceChildren(...[shown.paid ? make("p", {}, make("b", {}, t("payment")), ` ${known(`paid ${shown.paid}`, shown.paid)}`) : null,
    rows.length ? make("h3", {}, t("history")) : null, rows.length ? make("ol", { class: "history" }, ...rows.map(([ms, text]) => make("li", {}, make("span", { class: "soft" }, moment(ms)), " ", text))) : null,
    marked, taken.length ? make("h3", {}, t("moments")) : null, taken.length ? make("ul", { class: "history" }, ...taken) : null].filter(Boolean));
}
// The reason why a customer is believed again is the note below.
async function trust() {
  try { shown.heard = await post(visitPath(shown.visit, "/trust"), { note: $("note").value }); drawHistory(); } catch (error) { notify(error.message); }
}
function drawEvidence(bundle) {
  const box = $("review-evidence");
  if (!bundle) { box.replaceChildren(make("p", { class: "soft" }, t("no evidence"))); return; }
  const who = new Map(), key = (visit, account) => visit || account || "";
  const context = { plates, product, badge, mine: key(bundle.visit, bundle.account), who: (name) => who.get(name) || look("", name) };
  const meet = (visit, account) => { const name = key(visit, account); if (name && !who.has(name)) who.set(name, look(visit, account)); return name; };
  // The event that the question is about, then the least clear ones, since the decision depends on them most.
  const about = shown.question ? shown.question.event : null;
  const sure = (event) => event.event === about && about !== null ? -1 : Math.max(event.nothing, ...event.alternatives.map((candidate) => candidate.probability));
  const changes = (weights) => { const first = weights.find((g) => g !== null); return weights.map((g) => g === null ? null : g - first); };
  const places = (points) => points.map((point) => point && point.map((v) => 100 * v));
  const shownEvents = [...bundle.events].sort((a, b) => sure(a) - sure(b)).map((event) => {
    const ms = (time) => (time - event.contact) / 1e6;
    const row = {
      plate: event.plate, nothing: event.nothing, settled_ms: ms(event.settled),
      traces: event.traces.map((trace) => ({ plate: trace.plate, delta_g: trace.delta_g, start_ms: ms(trace.start), rate_hz: trace.rate_hz, grams: changes(trace.grams) })),
      wrists: event.wrists.map((path) => ({ who: meet(path.visit, path.account), times_ms: path.times.map(ms), left: places(path.left), right: places(path.right) })),
      alternatives: event.alternatives.map((candidate) => ({ who: meet(candidate.visit, candidate.account), gtin: candidate.gtin, quantity: candidate.quantity, p: candidate.probability })),
    };
    const weighed = event.sd_g ? ` \u00b7 ${grams([event.weighed_g, event.sd_g])}` : "";
    return Evidence.show(row, context, `${clock(event.contact / 1e6)} \u00b7 ${t("plate")} ${event.plate}${weighed}`);
  });
  // Their reviews hold what they took.
  const others = (bundle.unidentified || []).map((visit) => [make("button", { type: "button", class: "link", on: { click: () => open(visit) } }, short(visit))]);
  const hands = shown.question ? shown.question.hands : [];
  box.replaceChildren(...[others.length ? Page.unidentified(others) : null,
    hands.length ? make("p", { class: "hands-list" }, `${t("hands")}: `, hands.map((hand) => t("hand", { who: short(hand.visit, hand.account), cm: hand.cm, side: t(hand.side) })).join("; ")) : null,
    make("h3", {}, t("evidence", { events: n(bundle.events.length, "event") })), ...shownEvents,
    ...bundle.sightings.map((sighting) => make("p", { class: "soft" }, t("sighting", { time: clock(sighting.time / 1e6), source: sighting.source, zone: sighting.zone, goods: `${sighting.quantity} \u00d7 ${product(sighting.gtin)}`, p: percent(sighting.probability) })))].filter(Boolean));
}
function draw() {
  $("review-name").replaceChildren(badge(look(shown.visit, shown.account)), ` ${short(shown.visit, shown.account)} `, make("span", { class: `pill ${shown.status === "review" ? "warn" : "good"}` }, t(`status ${shown.status}`)));
  const bundle = shown.evidence, left = shown.ms ? shown.ms : bundle && Number.isFinite(bundle.exit) ? bundle.exit / 1e6 : null;
  $("review-meta").textContent = [shown.visit, left === null ? null : moment(left), money(shown.total)].filter(Boolean).join(" \u00b7 ");
  $("review-question").textContent = shown.status === "review" && shown.question ? shown.question.sentence : "";
  const weighed = shown.question && shown.question.weighed && shown.status === "review" ? t("measured", { weight: grams(shown.question.weighed), time: clock(shown.question.ms) }) : "";
  if (weighed) $("review-question").append(make("small", {}, weighed));
  const reasons = shown.status !== "review" ? [] : bundle && Array.isArray(bundle.reasons) && bundle.reasons.length ? bundle.reasons : [shown.reason || t("no reason")];
  $("review-why").replaceChildren(...(reasons.length ? [make("div", { class: "why" }, ...reasons.map((reason) => make("p", {}, reason)))] : []));
  $("editing").open = shown.status !== "review";
  drawLines(); drawHistory();
  // Evidence that cannot be drawn must not prevent a decision.
  try { drawEvidence(bundle); } catch { $("review-evidence").replaceChildren(make("p", { class: "soft" }, t("evidence cannot be shown"))); }
  const last = (shown.decided || []).at(-1);
  if (last && shown.status === "decided") notify(t("was decided", { by: last.by, time: moment(last.ms), what: t(`did ${last.decision}`), amount: money(shown.total) }));
  if (!allowed() && shown.status !== "decided") notify(t("may only look"));
  refresh();
}

// ---- opening, booking ----
const read = (visit) => ask(visitPath(visit, `?lang=${language}`));
export async function open(visit) {
  try { shown = await read(visit); } catch (error) { trouble(error.message); return; }
  choice = null; priced = null; busy = false;
  lines = merged(shown.lines).map((line) => [...line]);
  notify(""); $("note").value = ""; $("reason").value = suggested = "";
  draw();
  if (!$("review").open) $("review").showModal();
  // On no control: whoever presses Enter twice has opened a visit, and decided nothing.
  $("review-name").focus();
}
async function book() {
  if ($("book").disabled || !choice) return;
  const visit = shown.visit, revision = shown.revision + 1, body = { decision: choice.decision, revision, note: $("note").value, reason: $("reason").value };
  if (choice.decision === "correct") body.lines = choice.lines ? choice.lines.map(([gtin, quantity]) => ({ gtin, quantity })) : billed();
  busy = true; refresh();
  try {
    await post(visitPath(visit), body);
    busy = false;
    shown = { ...await read(visit), just: true };
    lines = merged(shown.lines).map((line) => [...line]);
    choice = null;
    draw();
    // Not on the button that takes it back, nor on the next visit: a second Enter does nothing.
    $("review-message").focus();
  } catch (error) { busy = false; refresh(); notify(error.message, true); }
}
$("book").addEventListener("click", book);
$("reason").addEventListener("change", refresh);
$("undo").addEventListener("click", () => { if (shown.proposal) undo(shown.proposal); });
$("agree").addEventListener("click", () => { if (shown.proposal) agree(shown.proposal); });
$("next").addEventListener("click", () => { const next = after(shown.visit); if (next) open(next.visit); });
$("review-close").addEventListener("click", () => $("review").close());
$("review").addEventListener("close", () => { clearTimeout(timer); if (shown) focus(shown.visit); });
$("reason").append(option("", t("reason choose")), ...store.reasons.map((reason) => option(reason, known(`reason ${reason}`, reason.replaceAll("_", " ")))));
$("note").setAttribute("placeholder", t("note"));
document.addEventListener("open-visit", (event) => open(event.detail));
document.addEventListener("keydown", (event) => {
  if (!$("review").open) return;
  // A button is pressed once, however long its key stays down.
  if (event.repeat && event.key === "Enter") { event.preventDefault(); return; }
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || /^(SELECT|TEXTAREA)$/.test(event.target.tagName) || (event.target.tagName === "INPUT" && event.target.type !== "radio")) return;
  // A number chooses; nothing is booked by it.
  const inputs = [...$("choices").querySelectorAll("input")], at = Number(event.key) - 1;
  if (/^[1-9]$/.test(event.key) && inputs[at] && !inputs[at].disabled) { event.preventDefault(); inputs[at].focus(); inputs[at].click(); }
});
/* The books have changed: if this visit has, show it as it stands now. */
document.addEventListener("books", async () => {
  if (!shown || !$("review").open || busy) return;
  const now = proposalOf(shown.visit), was = shown.proposal;
  const waits = waiting().some((row) => row.visit === shown.visit);
  const proposalChanged = (now ? `${now.number} ${now.state}` : "") !== (was ? `${was.number} ${was.state}` : "");
  if (!proposalChanged && waits === (shown.status === "review")) return;
  const before = shown, visit = shown.visit;
  try { shown = { ...await read(visit), just: before.just }; } catch { return; }
  if (shown.visit !== visit) return;
  if (shown.revision !== before.revision || (was && !shown.proposal) || (!was && shown.proposal)) {
    choice = null; priced = null;
    lines = merged(shown.lines).map((line) => [...line]);
  }
  draw();
  if (!shown.proposal && was && shown.status !== "decided") notify(t("proposal withdrawn"));
});
