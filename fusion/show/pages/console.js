(async () => {
  const { make, draw, percent, signed, count, plural } = Page;
  const $ = (id) => document.getElementById(id);
  const csrf = document.querySelector("meta[name=csrf]").content;
  const user = document.querySelector("meta[name=user]").content;
  const leave = () => { location.href = "/sign-in"; };

  async function ask(path, options) {
    const answer = await fetch(path, { credentials: "same-origin", ...options });
    if (answer.status === 401) { leave(); throw new Error("signed out"); }
    const content = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(content.error || `status ${answer.status}`);
    return content;
  }
  const store = await ask("/api/store");
  const plates = new Map(Object.entries(store.plates));
  const product = (gtin) => store.products[gtin] ? store.products[gtin][0] : gtin;
  const price = (gtin) => store.products[gtin] ? store.products[gtin][1] : 0;
  const zoned = Page.zoned(store.timezone), money = Page.money(store.currency, store.exponent);
  const clockFormat = zoned({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const dayFormat = zoned({ weekday: "short", day: "numeric", month: "long" });
  const clock = (ms) => clockFormat.format(new Date(ms));

  // Visits are numbered in the order of their arrival, on the plan as in every list, so that colour is never the only sign.
  const numbers = new Map();
  const numberOf = (visit) => { if (!numbers.has(visit)) numbers.set(visit, numbers.size + 1); return numbers.get(visit); };
  const look = (visit, label) => visit ? { label, number: String(numberOf(visit)), colour: `c${(numberOf(visit) - 1) % 8}` } : { label: label || "unidentified visitor", number: "?", colour: "cnone" };
  const badge = (person) => make("span", { class: `badge ${person.colour}${person.number === "?" ? " unknown" : ""}`, "aria-hidden": "true" }, person.number);

  // ---- the floor ----
  const plan = $("plan"), layer = $("layer-people"), marks = new Map();
  let unit = 1;
  function measure() {
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
      mark.title.textContent = kind === "shopper" ? visit : kind;
    }
    for (const [track, mark] of marks) if (!seen.has(track)) { mark.group.remove(); marks.delete(track); }
  }
  function flash([ms, plate, , quantity]) {
    const at = plates.get(plate);
    if (!at) return;
    const r = 7 * unit, up = quantity < 0 ? -1 : 1, x = at.x, y = -at.y;
    const shape = draw("polygon", { class: up < 0 ? "taken" : "returned", points: `${x},${y + up * r} ${x - r},${y - up * r} ${x + r},${y - up * r}` });
    $("layer-events").append(shape);
    setTimeout(() => shape.remove(), 3000);
  }
  let cartsKey = "";
  function drawCarts(carts) {
    const key = JSON.stringify(carts);
    if (key === cartsKey) return;
    cartsKey = key;
    $("carts-count").textContent = plural(carts.length, "visit");
    $("carts").replaceChildren(...(carts.length ? carts.map(([visit, label, goods]) => make("div", { class: "cart" },
      make("b", {}, badge(look(visit, label)), label, make("span", { class: "sum" }, money(goods.reduce((sum, [gtin, n]) => sum + n * price(gtin), 0)))),
      make("ul", {}, ...goods.map(([gtin, n]) => make("li", {}, `${n} \u00d7 ${product(gtin)}`))))) : [make("p", { class: "soft" }, "No open visits.")]));
  }
  function drawGates(gates) {
    $("gates").replaceChildren(...Object.entries(gates).map(([gate, [ms, way]]) => make("span", {}, `${gate}: ${ms === null ? "quiet" : `last ${way} ${clock(ms)}`}`)));
  }
  function state(now) {
    $("clock").textContent = `${dayFormat.format(new Date(now.ms))}, ${clock(now.ms)} (${store.timezone})`;
    $("inside").textContent = `${now.people.length} inside`;
    drawPeople(now.people); drawCarts(now.carts); drawGates(now.gates);
    document.documentElement.dataset.states = String(Number(document.documentElement.dataset.states || 0) + 1);
  }

  // ---- events ----
  const listed = (id, row, n) => { const list = $(id); list.prepend(row); while (list.children.length > n) list.lastChild.remove(); };
  function goods(row) {
    const [ms, plate, gtin, quantity, label, p] = row;
    flash(row);
    listed("events", make("li", {}, make("span", { class: "soft" }, clock(ms)), make("span", {}, `${signed(quantity)} ${product(gtin)}`), make("b", {}, percent(p)), make("p", {}, `${label} ${quantity < 0 ? "took" : "put back"} \u00b7 plate ${plate}`)), 40);
  }
  const alert = ([ms, kind, subject, message]) => listed("alerts", make("li", {}, make("span", { class: "soft" }, clock(ms)), make("b", {}, `! ${kind}: ${subject}`), make("p", {}, message)), 60);
  const early = ([ms, visit, label, status, total, p]) => listed("bills", make("li", { "data-early": visit }, make("span", { class: "soft" }, clock(ms)), make("span", {}, label), make("b", {}, money(total)), make("p", {}, `${status === "settled" ? "" : "! for review, "}expected; ${(100 * p).toFixed(1)} % are corrected`)), 40);
  const bill = ([ms, visit, label, status, total]) => [...$("bills").children].filter((row) => row.dataset.early === visit).forEach((row) => row.remove()) || listed("bills", make("li", {}, make("span", { class: "soft" }, clock(ms)), make("span", {}, label), make("b", {}, money(total)), make("p", {}, status === "settled" ? "\u2713 settled" : "! for review")), 40);
  function health(now) {
    const cameras = now.cameras.filter((camera) => camera[1]), time = now.time ? [now.time] : [], bad = time.length + cameras.length + now.plates.length;
    $("sensors").textContent = bad ? `! ${[...time, ...cameras.map(([name, fault]) => `${name} ${fault}`), ...now.plates.map(([name, fault]) => `plate ${name} ${fault}`)].slice(0, 4).join(", ")}${bad > 4 ? ` and ${bad - 4} more` : ""}` : `\u2713 ${plural(now.cameras.length, "camera")} and all plates fine`;
  }
  // Every stream begins with the recent past.
  const forget = () => { for (const id of ["events", "alerts", "bills"]) $(id).replaceChildren(); };
  function live(on) {
    $("live").textContent = on ? "\u25cf live" : "\u25cb the store is not running";
    $("live").className = `pill ${on ? "good" : "warn"}`;
    if (on) forget();
    else { drawPeople([]); drawCarts([]); $("inside").textContent = "0 inside"; }
  }
  let queue = [];
  function reviews(rows) {
    queue = rows;
    $("waiting").textContent = `${rows.length} for review`;
    $("waiting").className = `pill ${rows.length ? "warn" : "good"}`;
    $("reviews-count").textContent = rows.length ? plural(rows.length, "visit") : "";
    const focused = document.activeElement && document.activeElement.dataset.visit;
    $("reviews").replaceChildren(...(rows.length ? rows.map((row) => make("li", {}, make("button", { type: "button", "data-visit": row.visit, on: { click: () => open(row.visit) } },
      make("span", { class: "name" }, row.account || "no credential"), make("b", {}, money(row.total)), make("span", { class: "soft" }, plural(row.pieces, "piece")), make("span", { class: "reason" }, row.reason || ""))))
      : [make("li", { class: "empty" }, "\u2713 No visit waits for a decision.")]));
    if (focused) focusQueue(focused);
    if (shown && $("review").open && !deciding && !rows.some((row) => row.visit === shown.visit)) {
      shown.status = "decided";
      notify("Another console has decided this visit");
      buttons(false);
    }
  }

  // ---- what was asked for and has not taken effect yet ----
  let proposals = [], aheadMs = 0, counting = null;
  const post = (path, body) => ask(path, { method: "POST", headers: { "content-type": "application/json", "x-csrf-token": csrf }, body: JSON.stringify(body) });
  const act = async (row, verb) => { try { await post(`/api/reviews/${encodeURIComponent(row.visit)}/${verb}`, { number: row.number }); } catch (error) { trouble(error.message); } };
  function drawProposals() {
    const left = (row) => Math.max(0, Math.ceil((row.due_ms - Date.now() - aheadMs) / 1000));
    $("proposals").replaceChildren(...proposals.map((row) => make("li", {}, make("p", {}, `${row.by}: ${row.decision} \u00b7 ${money(row.before)} \u2192 ${money(row.after)}`,
      make("small", {}, ` ${row.state === "waiting" ? "waits for a second person" : `takes effect in ${left(row)} s`}${row.seconded_by ? `, with ${row.seconded_by}` : ""}`)),
      row.state === "waiting" && row.by !== user ? make("button", { type: "button", class: "plain", on: { click: () => act(row, "second") } }, "Agree") : null,
      make("button", { type: "button", class: "plain", on: { click: () => act(row, "withdraw") } }, row.by === user ? "Undo" : "Refuse"))));
    clearTimeout(counting);
    if (proposals.some((row) => row.state === "counting")) counting = setTimeout(drawProposals, 1000);
  }
  function asked(rows) { proposals = rows; drawProposals(); }
  const now = (ms) => { aheadMs = ms - Date.now(); };

  // The list is drawn again with every change; the keyboard's focus stays on the same visit.
  const focusQueue = (visit) => { const rows = [...$("reviews").querySelectorAll("button")], row = rows.find((button) => button.dataset.visit === visit) || rows[0]; if (row) row.focus(); };

  // ---- a decision ----
  let shown = null, lines = [], deciding = false;
  const notify = (text) => { $("review-message").textContent = text; };
  const altered = () => JSON.stringify(lines.filter((line) => line[1] > 0).map((line) => line.slice(0, 2))) !== JSON.stringify(merged(shown.lines).map((line) => line.slice(0, 2)));
  function buttons(on) {
    const changed = shown && altered();
    $("accept").disabled = !on || changed;
    $("correct").disabled = !on || !changed;
    $("waive").disabled = !on;
  }
  // One row for each product, although the ledger keeps pieces at different prices apart: [gtin, pieces, price of a piece,
  // confidence, [pieces on the bill, their sum]].
  function merged(rows) {
    const found = new Map();
    for (const [gtin, quantity, unit, sure] of rows) {
      const line = found.get(gtin);
      if (line) { line[1] += quantity; line[3] = Math.min(line[3], sure); line[4][0] += quantity; line[4][1] += quantity * unit; }
      else found.set(gtin, [gtin, quantity, unit, sure, [quantity, quantity * unit]]);
    }
    return [...found.values()];
  }
  const cost = ([, quantity, unit, , billed]) => billed && billed[0] === quantity ? billed[1] : quantity * unit;
  function drawLines() {
    const change = (line, by) => {
      line[1] = Math.max(0, line[1] + by);
      drawLines(); buttons(shown.status === "review");
      $("review-lines").querySelectorAll(".stepper")[lines.indexOf(line)].children[by < 0 ? 0 : 2].focus();
    };
    $("review-lines").replaceChildren(make("tbody", {}, ...lines.map((line) => make("tr", {}, make("td", {}, product(line[0]), make("small", {}, line[0])),
      make("td", { class: `number${line[3] < 0.8 ? " low" : ""}` }, line[3] === null ? "" : Evidence.bar(line[3]), line[3] === null ? "" : percent(line[3])),
      make("td", { class: "number" }, make("span", { class: "stepper" }, make("button", { type: "button", class: "plain", "aria-label": `one piece less of ${product(line[0])}`, on: { click: () => change(line, -1) } }, "\u2212"), make("b", {}, String(line[1])), make("button", { type: "button", class: "plain", "aria-label": `one piece more of ${product(line[0])}`, on: { click: () => change(line, 1) } }, "+"))),
      make("td", { class: "number" }, money(cost(line)))))));
    const row = (name, amount) => make("tr", {}, make("th", { scope: "row", colspan: 3 }, name), make("td", { class: "number" }, make("b", {}, money(amount))));
    // The unchanged bill is exact; the server computes a changed one, with the prices and offers of the visit's end.
    $("review-lines").append(make("tfoot", {}, ...(altered() ? [row("About, before offers", lines.reduce((sum, line) => sum + cost(line), 0))]
      : [shown.discounts ? row("Offers", -shown.discounts) : null, row("Total", shown.total)].filter(Boolean))));
  }
  async function open(visit) {
    try { shown = await ask(`/api/reviews/${encodeURIComponent(visit)}`); }
    catch (error) { trouble(error.message); return; }
    lines = merged(shown.lines).map((line) => [...line]);
    notify(""); $("note").value = ""; $("reason").value = "";
    $("review-name").textContent = shown.account || "no credential";
    const bundle = shown.evidence;
    $("review-meta").textContent = [`Visit ${shown.visit}`, bundle && Number.isFinite(bundle.exit) ? `left ${clock(bundle.exit / 1e6)}` : null].filter(Boolean).join(" \u00b7 ");
    const reasons = bundle && Array.isArray(bundle.reasons) && bundle.reasons.length ? bundle.reasons : [shown.reason || "no reason was given"];
    $("review-why").replaceChildren(make("div", { class: "why" }, ...reasons.map((reason) => make("p", {}, reason))));
    drawLines();
    // Evidence that cannot be drawn must not prevent a decision.
    try { drawEvidence(bundle); } catch { $("review-evidence").replaceChildren(make("p", { class: "soft" }, "The evidence of this visit cannot be shown.")); }
    buttons(shown.status === "review" && !shown.proposal);
    if (shown.proposal) notify(`${shown.proposal.by} has asked for a decision: ${shown.proposal.decision}`);
    else if (shown.status !== "review") notify(shown.decided.length ? `Decided by ${shown.decided[shown.decided.length - 1].by}` : `This visit is ${shown.status}`);
    if (!$("review").open) $("review").showModal();
    $("accept").focus();
  }
  // What the shopper could be asked; an answer fills in the lines, and the reviewer still decides.
  function questionOf(bundle) {
    const [question] = bundle.questions || [];
    if (!question) return [];
    const named = (goods) => goods.map((one) => `${one.quantity < 0 ? "took" : "put back"} ${Math.abs(one.quantity)} \u00d7 ${product(one.gtin)}`).join(" and ") || "moved nothing";
    const fill = (answer) => {
      const wanted = new Map(answer.lines.map((one) => [one.gtin, one.quantity]));
      lines = merged(shown.lines).map((line) => [...line]);
      for (const line of lines) { line[1] = wanted.get(line[0]) || 0; wanted.delete(line[0]); }
      for (const [gtin, quantity] of wanted) lines.push([gtin, quantity, price(gtin), null]);
      drawLines(); buttons(shown.status === "review");
    };
    return [make("h3", {}, `Ask what they did at ${clock(question.time / 1e6)} at plate ${question.plate}`),
      make("p", {}, ...question.alternatives.map((answer) => make("button", { type: "button", class: "plain", on: { click: () => fill(answer) } }, `${named(answer.moved)}, ${percent(answer.probability)}`)))];
  }
  function drawEvidence(bundle) {
    const box = $("review-evidence");
    if (!bundle) { box.replaceChildren(make("p", { class: "soft" }, "The runner has left no evidence for this visit.")); return; }
    const who = new Map(), key = (visit, account) => visit || account || "";
    const context = { plates, product, badge, mine: key(bundle.visit, bundle.account), who: (name) => who.get(name) || look("", name) };
    const meet = (visit, account) => { const name = key(visit, account); if (name && !who.has(name)) who.set(name, look(visit, account || "no credential")); return name; };
    // The least clear event first, since the decision depends on it most.
    const sure = (event) => Math.max(event.nothing, ...event.alternatives.map((candidate) => candidate.probability));
    const changes = (grams) => { const first = grams.find((g) => g !== null); return grams.map((g) => g === null ? null : g - first); };
    const places = (points) => points.map((point) => point && point.map((v) => 100 * v));
    const shownEvents = [...bundle.events].sort((a, b) => sure(a) - sure(b)).map((event) => {
      const ms = (t) => (t - event.contact) / 1e6;
      const row = {
        plate: event.plate, nothing: event.nothing, settled_ms: ms(event.settled),
        traces: event.traces.map((trace) => ({ plate: trace.plate, delta_g: trace.delta_g, start_ms: ms(trace.start), rate_hz: trace.rate_hz, grams: changes(trace.grams) })),
        wrists: event.wrists.map((path) => ({ who: meet(path.visit, path.account), times_ms: path.times.map(ms), left: places(path.left), right: places(path.right) })),
        alternatives: event.alternatives.map((candidate) => ({ who: meet(candidate.visit, candidate.account), gtin: candidate.gtin, quantity: candidate.quantity, p: candidate.probability })),
      };
      return Evidence.show(row, context, `${clock(event.contact / 1e6)} \u00b7 plate ${event.plate}`);
    });
    // Their reviews hold what they took.
    const others = (bundle.unidentified || []).map((visit) => [make("button", { type: "button", class: "link", on: { click: () => open(visit) } }, visit)]);
    const beside = others.length ? Page.unidentified(others) : null;
    box.replaceChildren(...(beside ? [beside] : []), ...questionOf(bundle), make("h3", {}, `Evidence: ${plural(bundle.events.length, "shelf event")}, the least clear first`), ...shownEvents,
      ...bundle.sightings.map((sighting) => make("p", { class: "soft" }, `${clock(sighting.time / 1e6)} \u00b7 ${sighting.source} in ${sighting.zone} reported ${sighting.quantity} \u00d7 ${product(sighting.gtin)}, ${percent(sighting.probability)} sure`)));
  }
  async function decide(decision) {
    if (deciding || !shown || $(decision).disabled) return;
    deciding = true;
    buttons(false);
    const visit = shown.visit, body = { decision, revision: shown.revision + 1, note: $("note").value, reason: $("reason").value };
    if (decision === "correct") body.lines = lines.filter((line) => line[1] > 0).map(([gtin, quantity]) => ({ gtin, quantity }));
    try {
      await post(`/api/reviews/${encodeURIComponent(visit)}`, body);
      const next = queue.find((row) => row.visit !== visit && !row.proposal);
      if (next) await open(next.visit); else $("review").close();
    } catch (error) { notify(error.message); buttons(true); }
    deciding = false;
  }
  for (const decision of ["accept", "correct", "waive"]) $(decision).addEventListener("click", () => decide(decision));
  $("review-close").addEventListener("click", () => $("review").close());
  $("review").addEventListener("close", () => { if (shown) focusQueue(shown.visit); });
  $("reason").append(...store.reasons.map((reason) => make("option", { value: reason }, reason.replaceAll("_", " "))));
  $("add-product").append(...Object.entries(store.products).sort((a, b) => a[1][0].localeCompare(b[1][0])).map(([gtin, [name]]) => make("option", { value: gtin }, name)));
  $("add").addEventListener("click", () => {
    const gtin = $("add-product").value, line = lines.find((row) => row[0] === gtin);
    if (line) line[1]++; else lines.push([gtin, 1, price(gtin), null]);
    drawLines(); buttons(shown.status === "review");
  });
  document.addEventListener("keydown", (event) => {
    // A key that is held down decides one visit, not the visits after it.
    if ($("review").open && event.repeat && event.target.closest(".buttons")) event.preventDefault();
    if (!$("review").open || event.repeat || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
    const decision = { a: "accept", c: "correct", w: "waive" }[event.key.toLowerCase()];
    if (decision) { event.preventDefault(); decide(decision); }
  });
  $("sign-out").addEventListener("click", async () => { await ask("/sign-out", { method: "POST", headers: { "x-csrf-token": csrf } }); leave(); });

  // ---- the stream ----
  function trouble(text) { $("trouble").textContent = text; $("trouble").hidden = !text; }
  const handlers = { state, event: goods, alert, receipt: bill, early, health, live, reviews, proposals: asked, now_ms: now, trouble };
  function listen() {
    const stream = new EventSource("/api/live");
    stream.onmessage = (message) => { for (const [kind, content] of Object.entries(JSON.parse(message.data))) if (handlers[kind]) handlers[kind](content); };
    stream.addEventListener("signed-out", leave);
    stream.onopen = () => { trouble(""); forget(); };
    stream.onerror = async () => {
      trouble("The console does not answer. Trying again.");
      // The browser reconnects after a lost connection, but not after a refusal.
      if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
      // The stream gives no reason for a refusal; a request does.
      try { await ask("/api/store"); } catch { /* still away */ }
    };
  }
  listen();
  measure();
  document.documentElement.dataset.ready = "true";
})();
