// The floor as people move, carts as they fill, goods, alerts: all of it as the runner reports it.
import { $, aged, badge, clock, dayOf, listed, look, money, plates, product, short, store } from "./shop.js";
import { known, n, t } from "./texts.js";

const { make, draw, percent, signed } = Page;
const plan = $("plan"), layer = $("layer-people"), marks = new Map();
let unit = 1;
export function measure() {
  const box = plan.viewBox.baseVal;
  if (plan.clientWidth > 12) unit = Math.max(box.width / (plan.clientWidth - 12), box.height / Math.max(plan.clientHeight - 12, 1));
  plan.style.setProperty("--u", `${unit}px`);
  plan.style.setProperty("--k", unit);
}
plan.style.aspectRatio = `${plan.viewBox.baseVal.width} / ${plan.viewBox.baseVal.height}`;
new ResizeObserver(measure).observe(plan);

function drawPeople(people) {
  const seen = new Set(), r = 8.5 * unit;
  for (const [track, x, y, kind, visit] of people) {
    seen.add(track);
    let mark = marks.get(track);
    if (!mark || mark.kind !== kind) {
      if (mark) mark.group.remove();
      mark = { kind, group: draw("g"), shape: kind === "staff" ? draw("rect") : draw("circle"), number: draw("text"), title: draw("title") };
      mark.group.append(mark.shape, mark.number, mark.title);
      layer.append(mark.group);
      marks.set(track, mark);
    }
    const who = kind === "shopper" ? look(visit) : { number: kind === "staff" ? "S" : "?", colour: "cnone" };
    mark.group.setAttribute("class", who.colour);
    mark.shape.setAttribute("class", `mark ${kind}`);
    if (mark.shape.tagName === "rect") for (const [key, value] of [["x", x - r], ["y", -y - r], ["width", 2 * r], ["height", 2 * r]]) mark.shape.setAttribute(key, value);
    else for (const [key, value] of [["cx", x], ["cy", -y], ["r", r]]) mark.shape.setAttribute(key, value);
    mark.number.setAttribute("class", `number-in${who.number.length > 2 ? " long" : ""}`);
    mark.number.setAttribute("x", x); mark.number.setAttribute("y", -y + 0.5 * unit);
    mark.number.textContent = who.number;
    mark.title.textContent = kind === "shopper" ? visit : t(kind === "staff" ? "staff" : "unknown");
  }
  for (const [track, mark] of marks) if (!seen.has(track)) { mark.group.remove(); marks.delete(track); }
}
function flash([, plate, , quantity]) {
  const at = plates.get(plate);
  if (!at) return;
  const r = 7 * unit, up = quantity < 0 ? -1 : 1, x = at.x, y = -at.y;
  const shape = draw("polygon", { class: up < 0 ? "taken" : "returned", points: `${x},${y + up * r} ${x - r},${y - up * r} ${x + r},${y - up * r}` });
  $("layer-events").append(shape);
  setTimeout(() => shape.remove(), 3000);
}
let cartsKey = "";
const price = (gtin) => store.products[gtin] ? store.products[gtin][1] : 0;
function drawCarts(carts) {
  const key = JSON.stringify(carts);
  if (key === cartsKey) return;
  cartsKey = key;
  $("carts-count").textContent = n(carts.length, "visit");
  $("carts").replaceChildren(...(carts.length ? carts.map(([visit, label, goods]) => make("div", { class: "cart" },
    make("b", { title: visit }, badge(look(visit, label)), short(visit, label), make("span", { class: "sum" }, money(goods.reduce((sum, [gtin, count]) => sum + count * price(gtin), 0)))),
    make("ul", {}, ...goods.map(([gtin, count]) => make("li", {}, `${count} \u00d7 ${product(gtin)}`))))) : [make("p", { class: "soft" }, t("no open visits"))]));
}
function drawGates(gates) {
  $("gates").replaceChildren(...Object.entries(gates).map(([gate, [ms, way]]) => make("span", {}, `${gate}: ${ms === null ? t("quiet") : t(`last ${way}`, { time: clock(ms) })}`)));
}

// ---- how old all of that is ----
// A page that was sent nothing for this long shows old things, whatever the connection claims.
const STALE_MS = 5000;
let live = null, newestMs = null, arrived = 0;
const OLD = ["plan", "carts", "gates", "inside", "clock", "sensors"];
let wasOld = null;
/* When the shown state is from, where it is old; null where it is current. */
export const floorAge = () => live && performance.now() - arrived < STALE_MS ? null : newestMs || 0;
export function refreshAge() {
  const asOf = floorAge(), old = asOf === null ? null : asOf;
  if (old === wasOld) return;
  wasOld = old;
  aged("floor-age", OLD, old);
  $("live").textContent = live === null ? t("connecting") : !live ? `! ${t("store not running")}` : old === null ? `\u2713 ${t("live")}` : `! ${t("no news from the store")}`;
  $("live").className = `pill ${live && old === null ? "good" : "warn"}`;
  document.dispatchEvent(new CustomEvent("floor-age", { detail: old }));
}
setInterval(refreshAge, 1000);
$("carts").replaceChildren(make("p", { class: "soft" }, t("no data yet")));

export const handlers = {
  state(now) {
    newestMs = now.ms; arrived = performance.now();
    $("clock").textContent = `${dayOf(now.ms)}, ${clock(now.ms)} (${store.timezone})`;
    $("inside").textContent = t("n inside", { n: now.people.length });
    drawPeople(now.people); drawCarts(now.carts); drawGates(now.gates);
    refreshAge();
    document.documentElement.dataset.states = String(Number(document.documentElement.dataset.states || 0) + 1);
  },
  event(row) {
    const [ms, plate, gtin, quantity, label, p] = row;
    flash(row);
    listed("events", make("li", {}, make("span", { class: "soft" }, clock(ms)), make("span", {}, `${signed(quantity)} ${product(gtin)}`), make("b", {}, percent(p)),
      make("p", {}, `${short("", label)} ${t(quantity < 0 ? "took" : "put back")} \u00b7 ${t("plate")} ${plate}`)), 40);
  },
  alert([ms, kind, subject, message]) {
    listed("alerts", make("li", {}, make("span", { class: "soft" }, clock(ms)), make("b", {}, `! ${known(`warning ${kind}`, kind)}: ${subject}`), make("p", {}, message)), 60);
  },
  live(on) {
    if (on && !live) { $("events").replaceChildren(); $("alerts").replaceChildren(); arrived = performance.now(); }
    live = on; wasOld = undefined;
    refreshAge();
  },
};
export function forget() { $("events").replaceChildren(); $("alerts").replaceChildren(); }
