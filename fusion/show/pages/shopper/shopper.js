"use strict";
(async () => {
  const TEXTS = JSON.parse(document.getElementById("texts").textContent);
  const $ = (id) => document.getElementById(id);
  const kept = { get: (key) => { try { return JSON.parse(localStorage.getItem(key)); } catch { return null; } },
    set: (key, value) => { try { value === null ? localStorage.removeItem(key) : localStorage.setItem(key, JSON.stringify(value)); } catch { /* a browser that keeps nothing */ } } };

  // Everything that came from a store becomes a text node or an attribute, never markup.
  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
      else if (value === true) node.setAttribute(key, "");
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  }

  // ---- language, numbers, times ----
  const wished = [kept.get("language"), ...(navigator.languages || [navigator.language])].map((tag) => String(tag || "").slice(0, 2).toLowerCase());
  let language = wished.find((tag) => TEXTS[tag]) || "en";
  const t = (key, values) => TEXTS[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
  let me = { signed: null, currency: "EUR", exponent: 2, timezone: "UTC", store: "" };
  const LOCALES = { en: "en-GB", de: "de-DE" };
  const money = (minor) => new Intl.NumberFormat(LOCALES[language], { style: "currency", currency: me.currency, minimumFractionDigits: me.exponent, maximumFractionDigits: me.exponent }).format(minor / 10 ** me.exponent);
  const zoned = (options) => { try { return new Intl.DateTimeFormat(LOCALES[language], { ...options, timeZone: me.timezone }); } catch { return new Intl.DateTimeFormat(LOCALES[language], options); } };
  const clock = (ms) => zoned({ hour: "2-digit", minute: "2-digit" }).format(new Date(ms));
  const exact = (ms) => zoned({ hour: "2-digit", minute: "2-digit", second: "2-digit" }).format(new Date(ms));
  const year = (ms) => zoned({ year: "numeric" }).format(new Date(ms));
  const day = (ms) => zoned({ weekday: "short", day: "numeric", month: "long", ...(year(ms) === year(Date.now()) ? {} : { year: "numeric" }) }).format(new Date(ms));
  const pieces = (n) => n === 1 ? t("piece") : t("pieces", { n });

  function say(key, values) { $("message").replaceChildren(...(key ? [make("span", {}, t(key, values))] : [])); }
  class Answer extends Error { constructor(status, key) { super(key); this.status = status; this.key = key; } }
  async function ask(path, content) {
    const posted = content !== undefined;
    let answer;
    try {
      answer = await fetch(path, { method: posted ? "POST" : "GET", credentials: "same-origin", cache: "no-store",
        headers: posted ? { "content-type": "application/json", ...(me.csrf ? { "x-csrf-token": me.csrf } : {}) } : {}, body: posted ? JSON.stringify(content) : undefined });
    } catch { connected(false); throw new Answer(0, "offline"); }
    connected(true);
    const found = await answer.json().catch(() => ({}));
    if (answer.status === 401 && me.signed) { leave(); throw new Answer(401, "signed_out"); }
    if (!answer.ok) throw new Answer(answer.status, TEXTS.en[`error_${found.error}`] ? `error_${found.error}` : "error_other");
    return found;
  }
  const failed = (error) => { if (!(error instanceof Answer)) throw error; if (error.key === "signed_out") return; say(error.status === 0 ? "error_offline" : error.key); };
  function connected(on) { $("connection").textContent = on ? "" : t("offline"); document.documentElement.dataset.offline = String(!on); }

  // ---- where we are ----
  let baskets = new Map(), live = null, receipts = null, timer = null, stream = null;
  const place = () => { const [view, ...rest] = location.hash.slice(1).split("="); return [view, decodeURIComponent(rest.join("="))]; };
  const views = () => me.signed === "account" ? [...(me.codes ? ["code"] : []), "basket", "receipts", "me"] : ["receipt", "me"];
  function frame() {
    document.documentElement.lang = language;
    document.title = me.store ? `${me.store}` : t("title");
    $("store").textContent = me.store;
    for (const node of document.querySelectorAll("[data-text]")) node.textContent = t(node.dataset.text);
    $("nav").setAttribute("aria-label", t("nav"));
    $("nav").hidden = !me.signed;
    const [view] = place(), shown = view === "receipt" && me.signed === "account" ? "receipts" : view;
    $("nav").replaceChildren(make("ul", {}, ...views().map((name) => make("li", {}, make("a", { href: `#${name}`, "aria-current": name === shown ? "page" : null }, t(`nav_${name}`))))));
    $("languages").setAttribute("aria-label", t("language"));
    $("languages").replaceChildren(...Object.keys(TEXTS).map((tag) => make("button", { type: "button", lang: tag, "aria-pressed": String(tag === language),
      on: { click: () => { language = tag; kept.set("language", tag); show(false); [...$("languages").children].find((node) => node.lang === tag).focus(); } } }, TEXTS[tag].language_name)));
  }
  // News draws a page again; whoever was in it with the keyboard is at its heading then, not at the top of everything.
  function draw(...nodes) {
    const within = $("main").contains(document.activeElement);
    $("main").replaceChildren(...nodes.filter(Boolean));
    if (within && $("main").querySelector("h1")) $("main").querySelector("h1").focus({ preventScroll: true });
  }
  const heading = (text) => make("h1", { tabindex: "-1" }, text);
  async function show(focus = true) {
    clearInterval(timer);
    let [view] = place();
    if (location.pathname === "/in" && location.hash.startsWith("#L1")) { frame(); return arriving(location.hash.slice(1)); }
    if (!me.signed) { frame(); signedOut(); }
    else {
      if (!views().includes(view) && view !== "receipt") { view = views()[0]; history.replaceState(null, "", `/#${view}`); }
      frame();
      try { await { code: codeView, basket: basketView, receipts: receiptsView, receipt: () => receiptView(place()[1]), me: meView }[view](); } catch (error) { failed(error); }
    }
    if (focus && $("main").querySelector("h1")) $("main").querySelector("h1").focus({ preventScroll: true });
    document.documentElement.dataset.ready = view || "signed-out";
  }
  window.addEventListener("hashchange", () => { say(""); show(); });
  function leave() {
    kept.set("code", null); kept.set("me", null);
    me = { ...me, signed: null, csrf: null, visit: null }; baskets = new Map(); receipts = null;
    if (stream) { stream.close(); stream = null; }
    history.replaceState(null, "", "/"); show();
  }

  // ---- signing in ----
  async function enter(content) {
    try { await ask("/api/sign-in", content); } catch (error) { if (error instanceof Answer && error.key.endsWith("_again")) return error.key; failed(error); return error.key; }
    history.replaceState(null, "", "/"); await start(); return "";
  }
  function arriving(token) {
    const button = make("button", { class: "primary", type: "button", on: { click: async () => {
      button.disabled = true;
      const fault = await enter({ token });
      if (!fault) return;
      button.hidden = true;
      again.hidden = !fault.endsWith("_again");
      if (!again.hidden) say(fault);
      home.hidden = false;
    } } }, t("arrive_button"));
    const again = make("button", { type: "button", hidden: true, on: { click: async () => { again.disabled = true; try { await ask("/api/sign-in/mail", { token }); say("mail_sent"); } catch (error) { failed(error); } } } }, t("link_again"));
    const home = make("a", { class: "button", href: "/", hidden: true }, t("to_start"));
    draw(heading(t("arrive")), make("div", { class: "card" }, make("p", {}, t("arrive_text")), make("p", { class: "buttons" }, button, again, home)));
    document.documentElement.dataset.ready = "arriving";
  }
  function signedOut() {
    const code = make("input", { class: "code", type: "text", id: "guest-code", autocomplete: "one-time-code", autocapitalize: "characters", spellcheck: "false", maxlength: "12", required: true });
    const email = make("input", { type: "email", id: "email", autocomplete: "email", required: true, maxlength: "255" });
    const form = (button, ...children) => make("form", { class: "card" }, ...children, make("p", { class: "buttons" }, make("button", { class: "primary" }, button)));
    const guest = form(t("code_button"), make("h2", {}, t("guest")), make("p", {}, t("guest_text")), make("label", { class: "field" }, t("guest_code"), code));
    guest.addEventListener("submit", (event) => { event.preventDefault(); enter({ code: code.value }); });
    const mail = form(t("mail_button"), make("h2", {}, t("customer")), make("p", {}, t("customer_text")), make("label", { class: "field" }, t("email"), email));
    mail.addEventListener("submit", async (event) => { event.preventDefault(); try { await ask("/api/sign-in/mail", { email: email.value }); say("mail_sent"); mail.reset(); } catch (error) { failed(error); } });
    draw(heading(t("welcome")), make("p", {}, t("welcome_text")), me.mails && mail, guest);
  }

  // ---- the code for the gate ----
  async function codeView() {
    const picture = make("img", { class: "code-picture", alt: t("code_alt"), hidden: true }), until = make("p", { class: "soft", "aria-live": "off" });
    const left = make("progress", { max: "60", value: "60", "aria-label": t("code_left") }), note = make("p", { role: "status" });
    const another = make("button", { type: "button", on: { click: () => renew(true) } }, t("code_another"));
    draw(heading(t("code")), make("div", { class: "card" }, make("p", {}, t("code_text")), picture, left, until, note, make("p", { class: "buttons" }, another)));
    let busy = false, due = 0;
    async function renew(more) {
      if (busy) return;
      busy = true;
      try {
        const found = await ask("/api/code", more ? { another: true } : {});
        // Times by this phone's clock, however wrong it is.
        const off = Date.now() - found.now_ms;
        kept.set("code", { picture: found.picture, until: found.until_ms + off }); due = found.next_ms + off;
      } catch (error) { if (error instanceof Answer && error.status === 0) due = Date.now() + 3000; else failed(error); }
      busy = false; tick();
    }
    function tick() {
      const code = kept.get("code"), now = Date.now(), good = code && code.until > now;
      picture.hidden = left.hidden = !good;
      if (good) { if (picture.src !== code.picture) picture.src = code.picture; left.value = Math.min(60, (code.until - now) / 1000); }
      until.textContent = good ? t("code_until", { time: exact(code.until) }) : "";
      const offline = document.documentElement.dataset.offline === "true";
      const text = offline ? t(good ? "code_offline" : "code_expired") : "";
      if (note.textContent !== text) note.textContent = text;
      if (now >= due && !busy) { due = now + 3000; renew(false); }
    }
    timer = setInterval(tick, 1000);
    tick();
  }

  // ---- baskets and receipts ----
  const taken = (line) => line.taken && line.taken.length ? [...new Set(line.taken.map(([ms, plate]) => t("taken", { time: clock(ms), plate })))].join(", ") : "";
  function line(row, more) {
    return make("li", {}, make("span", { class: "name" }, row.quantity === 1 ? row.name : `${row.quantity} \u00d7 ${row.name}`), make("span", { class: "amount" }, money(row.amount)),
      taken(row) && make("p", { class: "taken more" }, taken(row)), more);
  }
  const discountLines = (rows) => rows.map(([offer, name, amount]) => make("li", {}, make("span", {}, `${offer}: ${name}`), make("span", { class: "amount" }, money(-amount))));
  function basketView() {
    const open = [...baskets.values()];
    draw(heading(t("basket")), live === false && make("p", { class: "card" }, t("store_away")),
      ...(open.length ? open.map((basket) => make("div", { class: "card" }, make("ul", { class: "lines", "aria-live": "polite", "aria-label": t("basket") }, ...basket.lines.map((row) => line(row)), ...discountLines(basket.discounts)),
        basket.lines.length ? null : make("p", {}, t("basket_empty")), make("p", { class: "sum" }, make("span", {}, t("total")), make("span", { class: "amount" }, money(basket.total))), make("p", { class: "soft small" }, t("basket_text")))) :
        [make("div", { class: "card" }, make("p", {}, t("not_inside")), me.codes && me.signed === "account" ? make("p", { class: "buttons" }, make("a", { class: "button", href: "#code" }, t("nav_code"))) : null)]));
  }
  const states = { open: "state_open", review: "state_review", settled: "state_settled", decided: "state_decided" };
  const state = (row) => make("span", { class: `state ${row.status === "review" ? "wait" : ""}` }, t(states[row.status]));
  async function receiptsView() {
    receipts = (await ask("/api/visits")).visits;
    draw(heading(t("receipts")), receipts.length ? make("ul", { class: "visits card" }, ...receipts.map((row) => make("li", {}, make("a", { href: `#receipt=${encodeURIComponent(row.visit)}` },
      make("span", {}, `${day(row.ms)}, ${clock(row.ms)}`), make("span", { class: "amount" }, row.status === "open" ? "" : money(row.total)), make("span", { class: "soft" }, row.status === "open" ? "" : pieces(row.pieces)), state(row))))) : make("p", { class: "card" }, t("no_receipts")));
  }
  async function receiptView(visit) {
    const name = visit || me.visit || "";
    if (!name) { location.hash = "receipts"; return; }
    const found = await ask(`/api/visit?visit=${encodeURIComponent(name)}`);
    if (place()[0] === "receipt") drawReceipt(found);
  }
  function drawReceipt(found) {
    if (found.status === "open") {
      const basket = baskets.get(found.visit);
      draw(heading(t("visit_open")), make("p", {}, t("visit_open_text")), basket ? make("div", { class: "card" }, make("ul", { class: "lines" }, ...basket.lines.map((row) => line(row)), ...discountLines(basket.discounts)),
        make("p", { class: "sum" }, make("span", {}, t("total")), make("span", { class: "amount" }, money(basket.total)))) : null);
      return;
    }
    const waits = found.status === "review", act = (path, content, done) => async (event) => {
      event.preventDefault();
      const button = event.submitter || event.currentTarget;
      button.disabled = true;
      try { done(await ask(path, { visit: found.visit, ...content() })); } catch (error) { button.disabled = false; failed(error); }
    };
    const became = (answer) => { drawReceipt(answer.receipt); say(`became_${answer.status}`); $("main").querySelector("h1").focus({ preventScroll: true }); };
    const rows = found.lines.map((row) => line(row, wrong(row)));
    function wrong(row) {
      const disputed = found.disputed[row.gtin];
      if (disputed) return make("p", { class: "more small wrong" }, t(disputed.open ? "disputed_open" : "disputed_done"));
      const many = make("input", { type: "number", min: "1", max: String(row.quantity), value: "1", inputmode: "numeric" });
      const reasons = ["not taken", "put back", "other goods", "other quantity", "other price"].map((reason, i) => make("label", { class: "choice" }, make("input", { type: "radio", name: `why-${row.gtin}`, value: reason, checked: i === 0 }), make("span", {}, t(`reason_${reason.replace(" ", "_")}`))));
      const form = make("form", {}, make("fieldset", {}, make("legend", {}, t("why")), ...reasons), row.quantity > 1 ? make("label", { class: "field" }, t("how_many"), many) : null, make("p", { class: "buttons" }, make("button", { class: "primary" }, t("send"))));
      form.addEventListener("submit", act("/api/dispute", () => ({ gtin: row.gtin, quantity: Number(many.value), reason: form.querySelector("input[type=radio]:checked").value }), became));
      return make("details", { class: "more wrong" }, make("summary", { "aria-label": t("wrong_with", { name: row.name }) }, t("wrong")), form);
    }
    draw(heading(`${day(found.ms)}, ${clock(found.ms)}`), make("p", {}, state(found), found.revision && !waits ? make("span", { class: "soft" }, ` ${t("corrected", { n: found.revision })}`) : null),
      waits ? make("p", {}, t(found.questions.some((each) => each.answered === null) ? "review_asks" : "review_text")) : null,
      ...found.questions.map((asked) => question(asked, act, became)),
      make("div", { class: "card" }, make("p", { class: "soft small" }, found.seller), make("ul", { class: "lines" }, ...rows, ...discountLines(found.discounts)), found.lines.length ? null : make("p", {}, t("nothing")),
        make("p", { class: "sum" }, make("span", {}, t(waits ? "total_so_far" : "total")), make("span", { class: "amount" }, money(found.total))),
        ...found.taxes.map(([rate, net, vat]) => make("p", { class: "row" }, make("span", {}, t("vat", { rate, net: money(net) })), make("span", { class: "amount" }, money(vat)))),
        waits ? null : make("p", { class: "row" }, make("span", {}, t("paid")), make("span", { class: "amount" }, money(found.paid))),
        found.owed < 0 ? make("p", { class: "row" }, make("span", {}, t("returned")), make("span", { class: "amount" }, money(-found.owed))) : null),
      waits ? null : make("p", { class: "buttons" }, make("a", { class: "button", href: `/api/receipt.pdf?visit=${encodeURIComponent(found.visit)}`, download: true }, t("pdf")),
        make("button", { type: "button", on: { click: () => window.print() } }, t("print")),
        found.mail ? make("button", { type: "button", on: { click: act("/api/mail", () => ({}), () => say("mailed")) } }, t("mail")) : null),
      make("p", { class: "soft small" }, t("number", { visit: found.visit })));
  }
  function question(asked, act, became) {
    if (asked.answered !== null) return make("p", { class: "card" }, t("answered"));
    const moved = (choice) => choice.moved.length ? choice.moved.map(([name, n]) => n < 0 ? t("q_took", { n: -n, name }) : t("q_put", { n, name })).join(", ") : t("q_nothing");
    const option = (value, text, amount, checked) => make("label", { class: "choice" }, make("input", { type: "radio", name: `q-${asked.id}`, value: String(value), checked }), make("span", {}, text), make("span", { class: "amount soft" }, amount));
    const form = make("form", { class: "card asks" }, make("fieldset", {}, make("legend", {}, t("question", { time: clock(asked.ms), plate: asked.plate })), asked.nearby.length ? make("p", { class: "soft small" }, t("nearby", { names: asked.nearby.join(", ") })) : null,
      ...asked.choices.map((choice, i) => option(choice.number, moved(choice), t("q_total", { total: money(choice.total), goods: choice.holds.map(([name, n]) => `${n} × ${name}`).join(", ") }), i === 0)), option(-1, t("q_none"), "", false), option(-2, t("q_unknown"), "", false)), make("p", { class: "buttons" }, make("button", { class: "primary" }, t("answer"))));
    form.addEventListener("submit", act("/api/answer", () => ({ question: asked.id, choice: Number(form.querySelector("input:checked").value) }), became));
    return form;
  }

  // ---- a person's own data ----
  async function meView() {
    const profile = me.signed === "account" && me.profiles ? await ask("/api/profile") : null;
    if (place()[0] !== "me") return;
    const box = profile && make("input", { type: "checkbox", checked: profile.consent, on: { change: async () => { try { await ask("/api/profile", { consent: box.checked }); say(box.checked ? "profile_on" : "profile_off"); await show(false); } catch (error) { box.checked = !box.checked; failed(error); } } } });
    const sure = make("input", { type: "checkbox" }), erase = make("button", { class: "bad", type: "button", disabled: true, on: { click: async () => { try { await ask("/api/erase", {}); leave(); say("erased"); } catch (error) { failed(error); } } } }, t("erase"));
    sure.addEventListener("change", () => { erase.disabled = !sure.checked; });
    const out = (everywhere) => async () => { try { await ask("/api/sign-out", { everywhere }); leave(); say("signed_out"); } catch (error) { failed(error); } };
    draw(heading(t("me")), profile && make("div", { class: "card" }, make("h2", {}, t("profile")), make("p", {}, t("profile_text")), make("label", { class: "choice" }, box, make("span", {}, t("profile_consent"))),
      profile.bought.length ? make("ul", {}, ...profile.bought.slice(0, 20).map(([name, n]) => make("li", {}, `${n} \u00d7 ${name}`))) : null),
      make("div", { class: "card" }, make("h2", {}, t("data")), make("p", {}, t("data_text")), make("p", { class: "buttons" }, make("a", { class: "button", href: "/api/data.json", download: "my-data.json" }, t("data_button")))),
      make("div", { class: "card" }, make("h2", {}, t("sign_out")), make("p", { class: "buttons" }, make("button", { type: "button", on: { click: out(false) } }, t("sign_out_here")), make("button", { type: "button", on: { click: out(true) } }, t("sign_out_everywhere")))),
      me.signed === "account" && me.erases ? make("div", { class: "card" }, make("h2", {}, t("erase_title")), make("p", {}, t("erase_text")), make("label", { class: "choice" }, sure, make("span", {}, t("erase_sure"))), make("p", { class: "buttons" }, erase)) : null);
  }

  // ---- what comes by itself ----
  /* From the basket to the receipt that it has become; the end of a visit and its receipt come in either order. */
  async function toReceipt(visit) {
    try {
      const found = await ask(`/api/visit?visit=${encodeURIComponent(visit)}`);
      if (found.status !== "open" && place()[0] === "basket") location.hash = `receipt=${encodeURIComponent(visit)}`;
    } catch (error) { failed(error); }
  }
  function follow() {
    if (stream) stream.close();
    stream = new EventSource("/api/live");
    stream.addEventListener("signed-out", leave);
    stream.onopen = () => connected(true);
    stream.onerror = () => connected(false);
    stream.onmessage = (event) => {
      const now = JSON.parse(event.data);
      document.documentElement.dataset.messages = String(Number(document.documentElement.dataset.messages || 0) + 1);
      const [view, shown] = place();
      if ("live" in now) { live = now.live; if (view === "basket") basketView(); }
      if (now.basket) {
        const is = baskets.has(now.basket.visit);
        if (now.basket.over) baskets.delete(now.basket.visit); else baskets.set(now.basket.visit, now.basket);
        if (view === "basket") { basketView(); if (now.basket.over) toReceipt(now.basket.visit); }
        else if (view === "code" && !is && !now.basket.over) { location.hash = "basket"; say("came_in"); }
        else if (view === "receipt" && !shown && me.visit === now.basket.visit) receiptView("").catch(failed);
      }
      if (now.visit) {
        // A form that is being filled in stays; the news waits in the message.
        const busy = $("main").querySelector("details[open]") || $("main").contains(document.activeElement) && ["INPUT", "SELECT"].includes(document.activeElement.tagName);
        if (view === "receipts") receiptsView().catch(failed);
        else if (view === "receipt" && (shown || me.visit) === now.visit) { if (!busy) receiptView(shown).catch(failed); }
        else if (view === "basket") toReceipt(now.visit);
      }
    };
  }
  async function start() {
    try { me = await ask("/api/me"); kept.set("me", me.signed ? { ...me, csrf: null } : null); if (!me.signed) kept.set("code", null); }
    catch (error) { const before = kept.get("me"); if (before) me = before; else failed(error); }
    if (me.signed) follow();
    await show();
  }
  window.addEventListener("online", () => start());
  if ("serviceWorker" in navigator && window.isSecureContext) navigator.serviceWorker.register("/sw.js").catch(() => {});
  await start();
})();
