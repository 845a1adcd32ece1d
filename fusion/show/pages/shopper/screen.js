"use strict";
(async () => {
  const TEXTS = JSON.parse(document.getElementById("texts").textContent);
  const $ = (id) => document.getElementById(id);
  // An answer of the gate stands for this long, a guest's code for longer, then the screen welcomes the next person.
  const SHOWN_MS = 6000, REFUSED_MS = 9000, CODE_MS = 45000;
  let language = (navigator.languages || [navigator.language]).map((tag) => String(tag || "").slice(0, 2).toLowerCase()).find((tag) => TEXTS[tag]) || "en";
  const t = (key, values) => TEXTS[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  }
  let me = {}, live = null, timer = null, now = null, baskets = [];
  const confirmed = new Map();
  const LOCALES = { en: "en-GB", de: "de-DE" };
  const money = (minor) => new Intl.NumberFormat(LOCALES[language], { style: "currency", currency: me.currency, minimumFractionDigits: me.exponent, maximumFractionDigits: me.exponent }).format(minor / 10 ** me.exponent);
  // What a gate shows is translated where it is one of its own sentences; a name is shown as it is.
  const says = (text) => TEXTS.en[`says ${text}`] ? t(`says ${text}`) : text;
  async function ask(path, content) {
    const answer = await fetch(path, { method: content ? "POST" : "GET", credentials: "same-origin", cache: "no-store", headers: content ? { "content-type": "application/json", ...(me.csrf ? { "x-csrf-token": me.csrf } : {}) } : {}, body: content ? JSON.stringify(content) : undefined });
    const found = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(found.error || "other");
    return found;
  }
  function draw(kind, ...nodes) { $("main").className = kind; $("main").replaceChildren(...nodes.filter(Boolean)); document.documentElement.dataset.shows = kind; }
  const sign = (text) => make("p", { class: "sign", "aria-hidden": "true" }, text);
  function gate() {
    const id = me.screen.slice(5), way = me.ways[id], moment = now && Date.now() < now.until ? now : null;
    if (live === false) return draw("moment", make("h1", {}, t("please_wait")), make("p", {}, t("away")));
    if (moment && moment.door) return draw("door", make("img", { src: moment.door.picture, alt: t("code_alt") }), make("div", {}, make("h1", {}, t("your_receipt")), moment.door.url ? make("p", {}, t("your_receipt_text", { url: moment.door.url.replace(/^https?:\/\//, "") })) : null, make("p", { class: "code" }, moment.door.code)));
    if (moment && moment.kind === "open") return draw("open", sign("\u2713"), make("h1", {}, says(moment.display) || t(moment.way === "out" ? "goodbye" : "welcome")), moment.way === "in" ? make("p", {}, t("come_in")) : null);
    if (moment && moment.kind === "moment") return draw("moment", sign("\u2026"), make("h1", {}, says(moment.display) || t("please_wait")), make("p", {}, t("please_wait_text")), shown());
    if (moment) return draw("shut", sign("\u00d7"), make("h1", {}, t("refused")), make("p", {}, says(moment.display) || t("says Please ask the staff")), shown());
    if (baskets.length) return draw("zone", shown(), make("p", {}, t("way_out_pays")));
    if (way === "out") return draw("idle", make("h1", {}, t("way_out")), make("p", {}, t(me.pays === "door" ? "way_out_pays" : "way_out_text")));
    draw("idle", make("h1", {}, t("welcome")), make("p", {}, t("welcome_text")));
  }
  const held = (total, lines) => [lines.length ? make("ul", {}, ...lines.map(([gtin, n, price]) => make("li", {}, make("span", {}, `${n} \u00d7 ${me.products[gtin] || gtin}`), make("span", { class: "amount" }, money(n * price))))) : make("p", {}, t("basket_nothing")),
    make("p", { class: "sum" }, make("span", {}, t("total")), make("span", { class: "amount" }, money(total)))];
  const shown = () => baskets.length ? make("div", { class: "baskets" }, ...baskets.map(([, total, lines]) => make("section", { class: "basket" }, ...held(total, lines)))) : null;
  function payment() {
    if (live === false) return draw("moment", make("h1", {}, t("please_wait")), make("p", {}, t("away")));
    const rows = baskets;
    if (!rows.length) { confirmed.clear(); return draw("idle", make("h1", {}, t("zone_empty")), make("p", {}, t("zone_empty_text"))); }
    draw("zone", make("div", { class: "baskets" }, ...rows.map(([visit, total, lines]) => {
      const state = confirmed.get(visit), same = state && state.total === total;
      const button = make("button", { type: "button", disabled: same && (state.done || state.waits) ? true : null, on: { click: () => confirm(visit, total) } }, t("confirm", { total: money(total) }));
      return make("section", { class: "basket" }, ...held(total, lines),
        same && state.done ? make("p", { role: "status" }, `\u2713 ${t("confirmed")}`) : total ? button : null, same && state.text && !state.done ? make("p", { role: "status", class: state.waits ? "" : "bad" }, state.text) : null);
    })));
  }
  async function confirm(visit, total) {
    confirmed.set(visit, { total, waits: true, text: t("please_wait") }); show();
    try {
      const answer = await ask("/screen/api/confirm", { visit, total });
      if (answer.again_s !== null) return setTimeout(() => confirm(visit, total), 1000 * answer.again_s);
      confirmed.set(visit, { total, done: answer.confirmed, text: says(answer.display) });
    } catch { confirmed.set(visit, { total, text: t("error_other") }); }
    show();
  }
  function pairing() {
    const code = make("input", { id: "code", autocomplete: "off", autocapitalize: "characters", spellcheck: "false", maxlength: "12", required: true }), fault = make("p", { class: "bad", role: "alert" });
    const form = make("form", {}, make("label", {}, t("pair_code"), code), fault, make("button", {}, t("pair_button")));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try { await ask("/screen/api/pair", { code: code.value }); await start(); } catch (error) { fault.textContent = t(TEXTS.en[`error_${error.message}`] ? `error_${error.message}` : "error_other"); }
    });
    draw("pairing", make("h1", {}, t("pair")), make("p", {}, t("pair_text")), form);
  }
  function show() {
    document.documentElement.lang = language; document.title = me.store || t("title"); $("store").textContent = me.store || "";
    $("languages").setAttribute("aria-label", t("language"));
    $("languages").replaceChildren(...Object.keys(TEXTS).map((tag) => make("button", { type: "button", lang: tag, "aria-pressed": String(tag === language), on: { click: () => { language = tag; show(); } } }, TEXTS[tag].language_name)));
    if (!me.screen) return pairing();
    if (me.screen.startsWith("gate/")) gate(); else payment();
  }
  function until(ms, content) { now = { ...content, until: Date.now() + ms }; clearTimeout(timer); timer = setTimeout(show, ms + 50); show(); }
  function follow() {
    const stream = new EventSource("/screen/api/live");
    stream.addEventListener("signed-out", () => { stream.close(); me = { ...me, screen: null, csrf: null }; show(); });
    stream.onopen = () => { $("connection").textContent = ""; };
    stream.onerror = () => { $("connection").textContent = t("offline"); };
    stream.onmessage = (event) => {
      const news = JSON.parse(event.data);
      if ("live" in news) { live = news.live; if (!live) baskets = []; show(); }
      if (news.gate) { const [, , way, kind, display] = news.gate; until(kind === "shut" ? REFUSED_MS : SHOWN_MS, { way, kind, display }); }
      if (news.door) until(CODE_MS, { door: news.door });
      if (news.baskets) { baskets = news.baskets[2]; show(); }
    };
  }
  async function start() {
    try { me = await ask("/screen/api/me"); } catch { $("connection").textContent = t("offline"); setTimeout(start, 3000); return; }
    if (me.screen) { const path = `/screen/${me.screen}`; if (location.pathname !== path) history.replaceState(null, "", path); follow(); }
    show();
  }
  await start();
})();
