// The page: its views, its stream, its language.
import { choose, fillIn, language } from "./texts.js";
fillIn();
const { $, ask, leave, post, setNow, store, trouble } = await import("./shop.js");
const { t } = await import("./texts.js");
const floor = await import("./floor.js"), queue = await import("./queue.js"), visit = await import("./visit.js");
const receipts = await import("./receipts.js"), day = await import("./day.js"), health = await import("./health.js");

// ---- views ----
const VIEWS = ["now", "receipts", "day", "health"];
function view() {
  const [name, wanted] = location.hash.slice(1).split("=");
  const shown = VIEWS.includes(name) ? name : "now";
  for (const each of VIEWS) {
    $(`view-${each}`).hidden = each !== shown;
    const link = document.querySelector(`.tabs a[href="#${each}"]`);
    if (each === shown) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  if (shown === "now") floor.measure();
  if (shown === "receipts") receipts.search();
  if (shown === "day") day.show();
  if (shown === "health") health.show();
  if (name === "visit" && wanted) visit.open(decodeURIComponent(wanted));
}
addEventListener("hashchange", view);
$("language").value = language;
$("language").addEventListener("change", () => choose($("language").value));
// The user's other stores, where this console shows several.
const others = Object.entries(store.stores).filter(([, name]) => name !== store.name);
$("stores").hidden = !others.length;
$("stores").append(...others.flatMap(([id, name]) => [Page.make("a", { href: `/stores/${encodeURIComponent(id)}/` }, name), " "]));
$("sign-out").addEventListener("click", async () => { await post("/sign-out"); leave(); });

// ---- the stream ----
const handlers = {};
for (const part of [floor.handlers, queue.handlers, receipts.handlers, day.handlers, health.handlers, { trouble(text) { trouble(text ? t("books away") : ""); } }, { now_ms: setNow }])
  for (const [kind, handler] of Object.entries(part)) (handlers[kind] = handlers[kind] || []).push(handler);
function listen() {
  const stream = new EventSource("api/live");
  stream.onmessage = (message) => { for (const [kind, content] of Object.entries(JSON.parse(message.data))) for (const handler of handlers[kind] || []) handler(content); };
  stream.addEventListener("signed-out", leave);
  stream.onopen = () => { trouble(""); floor.forget(); receipts.forget(); };
  stream.onerror = async () => {
    trouble(t("console away"));
    // The browser reconnects after a lost connection, but not after a refusal.
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
    // The stream gives no reason for a refusal; a request does.
    try { await ask("api/store"); } catch { /* still away */ }
  };
}
view();
listen();
floor.refreshAge();
document.documentElement.dataset.ready = "true";
