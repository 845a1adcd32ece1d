(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const TRAIL_MS = 6000, FLASH_MS = 3000, GAP_MS = 1000, DOUBT = 0.8;
  const $ = (id) => document.getElementById(id);

  const { make, draw, percent, signed, count, plural } = Page;

  // ---- words and figures ----
  const zoned = Page.zoned(data.store.timezone), money = Page.money(data.money.currency, data.money.exponent);
  const clockFormat = zoned({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const dayFormat = zoned({ weekday: "short", day: "numeric", month: "long", year: "numeric" });
  const clock = (ms) => clockFormat.format(new Date(data.start_ms + ms));
  function span(ms) {
    const s = Math.max(0, Math.round(ms / 1000)), h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
    const tail = `${String(s % 60).padStart(2, "0")}`;
    return h ? `${h}:${String(m).padStart(2, "0")}:${tail}` : `${m}:${tail}`;
  }
  const product = (gtin) => data.names[gtin] || gtin;
  const short = (text, n) => text.length > n ? text.slice(0, n - 1).trimEnd() + "\u2026" : text;

  const visits = data.visits.map(([visit, account, staff, enter, exit], index) => ({
    visit, account, staff: !!staff, enter, exit, index,
    kind: staff ? "staff" : account === null ? "unknown" : "shopper",
    number: String(index + 1),
    label: account !== null ? account : staff ? `staff ${index + 1}` : visit !== null ? `unknown ${visit}` : "unknown",
  }));
  const unidentified = { index: -1, kind: "unknown", number: "?", label: "unidentified visitor" };
  const who = (index) => index >= 0 ? visits[index] : unidentified;
  const colour = (visit) => visit.kind === "shopper" ? `c${(visit.shade ?? visit.index) % 8}` : "cnone";
  // The number is on the plan and in every list, so that colour is never the only sign.
  const badge = (visit) => make("span", { class: `badge ${visit.kind} ${colour(visit)}`, "aria-hidden": "true" }, visit.number);

  // ---- paths ----
  const tracks = data.tracks.map(([id, index, rows]) => {
    const stretches = rows.map(([tick, x, y, text]) => {
      const bytes = atob(text), n = bytes.length / 2 + 1;
      const xs = new Int32Array(n), ys = new Int32Array(n);
      xs[0] = x; ys[0] = y;
      for (let i = 1; i < n; i++) {
        xs[i] = xs[i - 1] + ((bytes.charCodeAt(2 * i - 2) << 24) >> 24);
        ys[i] = ys[i - 1] + ((bytes.charCodeAt(2 * i - 1) << 24) >> 24);
      }
      return { start: tick * data.period_ms, end: (tick + n - 1) * data.period_ms, xs, ys };
    });
    // Without gates there are no visits, and tracks are numbered instead.
    const stranger = data.counts.gates ? { kind: "unknown", number: "?" } : { kind: "shopper", number: String(id) };
    const visit = index >= 0 ? visits[index] : { index: -1, shade: id, label: `track ${id}`, ...stranger };
    return { id, visit, stretches, start: stretches[0].start, end: stretches[stretches.length - 1].end };
  });

  function placeOf(track, ms) {
    let before = null;
    for (const stretch of track.stretches) {
      if (ms < stretch.start) {
        // Between two stretches: known well enough if the gap is short.
        if (before && stretch.start - before.end <= GAP_MS) {
          const f = (ms - before.end) / (stretch.start - before.end), i = before.xs.length - 1;
          return [before.xs[i] + f * (stretch.xs[0] - before.xs[i]), before.ys[i] + f * (stretch.ys[0] - before.ys[i])];
        }
        return null;
      }
      if (ms <= stretch.end) {
        const at = (ms - stretch.start) / data.period_ms, i = Math.floor(at), f = at - i, j = Math.min(i + 1, stretch.xs.length - 1);
        return [stretch.xs[i] + f * (stretch.xs[j] - stretch.xs[i]), stretch.ys[i] + f * (stretch.ys[j] - stretch.ys[i])];
      }
      before = stretch;
    }
    return null;
  }
  function trail(track, from, to) {
    const points = [];
    for (const stretch of track.stretches) {
      const first = Math.max(0, Math.ceil((from - stretch.start) / data.period_ms));
      const last = Math.min(stretch.xs.length - 1, Math.floor((to - stretch.start) / data.period_ms));
      for (let i = first; i <= last; i++) points.push(`${stretch.xs[i]},${-stretch.ys[i]}`);
    }
    return points;
  }

  // The most probable explanation is an event's headline, also where that is that nothing moved: then `best` is null.
  const events = data.events.map(([ms, plate, spot, grams, candidates, final, nothing]) => {
    const first = candidates[0], still = !first || nothing > first[3];
    return { ms, plate, spot, grams, candidates, nothing, final: !!final, best: still ? null : first, sure: still ? nothing : first[3] };
  });
  const verb = (quantity) => quantity < 0 ? "took" : "put back";
  const lengthMs = Math.max(data.length_ms, 1);

  // ---- heading and figures ----
  const settled = data.receipts.filter((r) => r.status === "settled"), review = data.receipts.filter((r) => r.status !== "settled");
  const wrong = data.receipts.filter((r) => r.difference && r.difference.length);
  const wrongSettled = wrong.filter((r) => r.status === "settled");
  $("subtitle").textContent = [data.store.name === data.title ? null : data.store.name, dayFormat.format(new Date(data.start_ms)), `${clock(0)} to ${clock(lengthMs)} (${data.store.timezone})`].filter(Boolean).join("  \u00b7  ");
  const pill = (kind, sign, text) => make("span", { class: `pill ${kind}` }, `${sign} ${text}`);
  const verdict = $("verdict");
  if (data.receipts.length) {
    verdict.append(pill("good", "\u2713", `${count(settled.length)} settled`));
    if (review.length) verdict.append(pill("warn", "!", `${count(review.length)} for review`));
    if (data.compared) {
      const bad = wrongSettled.length + data.missed.length;
      verdict.append(bad ? pill("bad", "\u2717", `${count(bad)} differ from truth`) : pill("good", "\u2713", "settled ones equal truth"));
    }
  }
  const step = data.summary.step_us;
  const brief = (us) => us >= 1e6 ? `${(us / 1e6).toFixed(1)} s` : us >= 1e5 ? `${(us / 1e3).toFixed(0)} ms` : `${(us / 1e3).toFixed(2)} ms`;
  const figure = (name, value, unit, detail) => make("div", { class: "figure" }, make("div", { class: "name" }, name),
    make("div", { class: "value" }, value, unit ? make("small", {}, " " + unit) : null), make("div", { class: "detail" }, detail));
  const shoppers = visits.filter((v) => v.kind === "shopper").length, staff = visits.filter((v) => v.staff).length;
  const unknown = visits.length - shoppers - staff;
  const items = settled.reduce((n, r) => n + r.lines.reduce((m, line) => m + line[1], 0), 0);
  $("figures").append(
    figure("Visits", count(shoppers), "", [!data.counts.gates ? plural(tracks.length, "track") : unknown ? plural(unknown, "unknown", "unknown") : "all with an account", staff ? plural(staff, "staff", "staff") : ""].filter(Boolean).join(", ")),
    figure("Settled", money(settled.reduce((n, r) => n + r.total, 0), true), data.money.currency, plural(settled.length, "receipt") + ", " + plural(items, "item")),
    figure("Waiting for review", money(review.reduce((n, r) => n + r.total, 0), true), data.money.currency, plural(review.length, "receipt")),
    figure("Shelf events", count(events.length), "", plural(events.filter((e) => e.sure < DOUBT).length, "below", "below") + ` ${percent(DOUBT)} sure`),
    figure("Engine step", step.p50 ? brief(step.p50).split(" ")[0] : "\u2013", step.p50 ? brief(step.p50).split(" ")[1] : "", step.p50 ? `median; p99 ${brief(step.p99 || 0)}, worst ${brief(step.max || 0)}` : "not measured"),
    figure("Length", span(lengthMs), "", `${plural(data.counts.cameras, "camera")}, ${plural(data.counts.plates, "plate")}`),
  );

  // ---- the plan ----
  const plan = $("plan"), layers = Object.fromEntries(["heat", "paths", "reaches", "trails", "people", "events"].map((name) => [name, $("layer-" + name)]));
  const whole = { ...["x", "y", "width", "height"].reduce((box, key) => ({ ...box, [key]: plan.viewBox.baseVal[key] }), {}) };
  let unit = 1, roomy = true;
  function measure() {
    const box = plan.viewBox.baseVal, width = plan.clientWidth - 12, height = plan.clientHeight - 12;
    // On a phone names would cover the plan: numbers alone, and the name of whoever is chosen.
    roomy = plan.clientWidth >= 560;
    if (width > 0 && height > 0) unit = Math.max(box.width / width, box.height / height);
    plan.style.setProperty("--u", `${unit}px`);
    plan.style.setProperty("--k", roomy ? unit : 0.7 * unit);
    drawScale();
  }
  // A bar of 1, 2 or 5 metres, or tens or tenths of them, in the corner of what is shown.
  function drawScale() {
    const box = plan.viewBox.baseVal, least = 70 * unit, tens = 10 ** Math.floor(Math.log10(least));
    const long = [1, 2, 5, 10].map((step) => step * tens).find((cm) => cm >= least);
    const right = box.x + box.width - 8 * unit, y = box.y + box.height - 8 * unit;
    $("layer-scale").replaceChildren(draw("path", { class: "scale-bar", d: `M${right - long} ${y - 4 * unit}V${y}H${right}V${y - 4 * unit}` }),
      draw("text", { class: "scale-text", x: right - long / 2, y: y - 10 * unit }, long < 100 ? `${long} cm` : `${long / 100} m`));
  }
  // The plan is as tall as its shape asks for, between the limits that the style sets.
  plan.style.aspectRatio = `${whole.width} / ${whole.height}`;

  // ---- zoom: the plan shows a part of itself; marks and text keep their size on the screen ----
  const ZOOM_MAX = 12, ZOOM_STEP = 1.5;
  let zoom = 1;
  /* Show the part that is `factor` times smaller, with the place (x, y) of the plan where it is now. */
  function zoomTo(factor, x, y) {
    const box = plan.viewBox.baseVal, next = Math.min(Math.max(factor, 1), ZOOM_MAX), k = zoom / next;
    const [cx, cy] = x === undefined ? [box.x + box.width / 2, box.y + box.height / 2] : [x, y];
    zoom = next;
    showPart(cx - (cx - box.x) * k, cy - (cy - box.y) * k);
  }
  function showPart(x, y) {
    const width = whole.width / zoom, height = whole.height / zoom;
    const left = Math.min(Math.max(x, whole.x), whole.x + whole.width - width), top = Math.min(Math.max(y, whole.y), whole.y + whole.height - height);
    plan.setAttribute("viewBox", `${left} ${top} ${width} ${height}`);
    plan.classList.toggle("zoomed", zoom > 1);
    $("zoom-out").disabled = $("zoom-all").disabled = zoom <= 1;
    $("zoom-in").disabled = zoom >= ZOOM_MAX;
    measure();
    render(false);
  }
  function placeAt(pointer) {
    const at = new DOMPoint(pointer.clientX, pointer.clientY).matrixTransform(plan.getScreenCTM().inverse());
    return [at.x, at.y];
  }
  $("zoom-in").addEventListener("click", () => zoomTo(zoom * ZOOM_STEP));
  $("zoom-out").addEventListener("click", () => zoomTo(zoom / ZOOM_STEP));
  $("zoom-all").addEventListener("click", () => zoomTo(1));
  // The wheel alone scrolls the page; with Ctrl, as a touchpad's pinch arrives, it zooms.
  plan.addEventListener("wheel", (wheel) => {
    if (!wheel.ctrlKey) return;
    wheel.preventDefault();
    zoomTo(zoom * Math.exp(-wheel.deltaY / 200), ...placeAt(wheel));
  }, { passive: false });
  plan.addEventListener("dblclick", (pointer) => zoomTo(zoom * ZOOM_STEP, ...placeAt(pointer)));
  const fingers = new Map();
  let dragged = false;
  plan.addEventListener("pointerdown", (pointer) => {
    if (pointer.button) return;
    fingers.set(pointer.pointerId, pointer);
    dragged = false;
  });
  plan.addEventListener("pointermove", (pointer) => {
    const before = fingers.get(pointer.pointerId);
    if (!before) return;
    const far = Math.hypot(pointer.clientX - before.clientX, pointer.clientY - before.clientY);
    // A hand that clicks trembles; with one finger on a whole plan the page scrolls.
    if (!dragged && far < 4) return;
    if (fingers.size === 2) {
      const [a, b] = [...fingers.values()], other = a.pointerId === pointer.pointerId ? b : a;
      const apart = (p) => Math.hypot(p.clientX - other.clientX, p.clientY - other.clientY);
      zoomTo(zoom * apart(pointer) / Math.max(apart(before), 1), ...placeAt(other));
    } else if (zoom > 1) {
      const box = plan.viewBox.baseVal;
      showPart(box.x - (pointer.clientX - before.clientX) * unit, box.y - (pointer.clientY - before.clientY) * unit);
    } else return;
    if (!dragged) plan.setPointerCapture(pointer.pointerId);
    dragged = true;
    fingers.set(pointer.pointerId, pointer);
  });
  for (const end of ["pointerup", "pointercancel"]) plan.addEventListener(end, (pointer) => fingers.delete(pointer.pointerId));
  function moveBy(x, y) {
    const box = plan.viewBox.baseVal;
    showPart(box.x + x * box.width / 5, box.y + y * box.height / 5);
  }

  let now = 0, playing = false, chosen = null, last = null;
  const people = new Map();
  function markOf(track) {
    let mark = people.get(track);
    if (mark) return mark;
    const group = draw("g", { class: colour(track.visit) });
    const shape = track.visit.kind === "staff" ? draw("rect", { class: "mark staff" }) : draw("circle", { class: `mark ${track.visit.kind}` });
    const number = draw("text", { class: `number-in${track.visit.number.length > 2 ? " long" : ""}` }, track.visit.number);
    const label = draw("text", { class: "who" }, short(track.visit.label, 16));
    group.append(shape, number, label, draw("title", {}, track.visit.label));
    group.addEventListener("click", () => { if (!dragged) choose(track); });
    const line = draw("polyline", { class: `trail ${colour(track.visit)}` });
    layers.people.append(group); layers.trails.append(line);
    mark = { group, shape, number, label, line, half: label.getComputedTextLength() / 2 / unit + 2 };
    people.set(track, mark);
    return mark;
  }
  function choose(track) {
    chosen = chosen === track ? null : track;
    render();
  }
  // ---- the values of whoever is chosen ----
  const metres = (cm, places = 2) => (cm / 100).toFixed(places);
  let panelKey = "";
  function drawChosen() {
    const panel = $("chosen");
    if (!chosen) { panel.replaceChildren(); panelKey = ""; return; }
    const at = placeOf(chosen, now), before = placeOf(chosen, now - 1000), visit = chosen.visit;
    const known = visit.index >= 0, receipt = known ? data.receipts.find((r) => r.who === visit.index) : undefined;
    const cart = new Map();
    for (let i = 0, end = firstAfter(now + 1); known && i < end; i++) {
      const best = events[i].best;
      if (best && best[0] === visit.index) cart.set(best[1], [(cart.get(best[1]) || [0])[0] - best[2], best[3]]);
    }
    const held = [...cart].filter(([, [n]]) => n > 0);
    const rows = [
      ["Place", at ? `x ${metres(at[0])} m, y ${metres(at[1])} m` : "not seen at this moment"],
      ["Speed", at && before ? `${metres(Math.hypot(at[0] - before[0], at[1] - before[1]), 1)} m/s` : "\u2013"],
      ["Track", `${chosen.id}, ${clock(chosen.start)} to ${clock(chosen.end)}`],
      known && visit.visit ? ["Visit", visit.visit] : null,
      known && visit.enter !== null ? ["Entered", `${clock(visit.enter)}, ${span(now - visit.enter)} ago`.replace(/, 0:00 ago/, now < visit.enter ? ", later" : ", now")] : null,
      known && visit.exit !== null ? ["Leaves", clock(visit.exit)] : null,
      known ? ["Holds", held.length ? held.map(([gtin, [n, p]]) => `${n} \u00d7 ${short(product(gtin), 24)} (${percent(p)})`).join(", ") : "nothing"] : null,
      receipt ? ["Receipt", `${money(receipt.total)}, ${receipt.status}`] : null,
    ].filter(Boolean);
    const key = JSON.stringify(rows);
    if (key === panelKey) return;
    panelKey = key;
    const closing = make("button", { type: "button", class: "close", "aria-label": "Close", on: { click: () => choose(chosen) } }, "\u00d7");
    panel.replaceChildren(make("div", { class: "chosen-head" }, badge(visit), make("b", {}, visit.label), closing),
      make("dl", {}, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])));
  }
  function drawPeople() {
    const seen = new Set(), spots = new Map(), taken = [], present = [];
    for (const track of tracks) {
      if (track.start > now) break;
      if (track.end < now) continue;
      const at = placeOf(track, now);
      if (!at) continue;
      present.push([track, at]);
    }
    present.sort((a, b) => b[1][1] - a[1][1]);
    for (const [, at] of present) taken.push([at[0], -at[1], 9 * unit]);
    for (const [track, at] of present) {
      seen.add(track);
      const mark = markOf(track), x = at[0], y = -at[1], r = (roomy ? 8.5 : 7.5) * unit;
      if (mark.shape.tagName === "rect") for (const [key, value] of [["x", x - r], ["y", y - r], ["width", 2 * r], ["height", 2 * r]]) mark.shape.setAttribute(key, value);
      else for (const [key, value] of [["cx", x], ["cy", y], ["r", r]]) mark.shape.setAttribute(key, value);
      mark.number.setAttribute("x", x); mark.number.setAttribute("y", y + 0.5 * unit);
      const named = roomy || track === chosen;
      mark.label.style.display = named ? "" : "none";
      if (named) putLabel(mark.label, x, y - 17 * unit, mark.half * unit, taken);
      mark.line.setAttribute("points", [...trail(track, now - TRAIL_MS, now), `${x},${y}`].join(" "));
      mark.group.classList.toggle("chosen", track === chosen);
      if (track.visit.index >= 0) spots.set(track.visit.index, [...(spots.get(track.visit.index) || []), [x, y]]);
    }
    for (const [track, mark] of people) if (!seen.has(track)) { mark.group.remove(); mark.line.remove(); people.delete(track); }
    return { seen, spots, taken };
  }
  // Labels that would overlap are moved upwards, but never beyond the edge of the plan.
  function putLabel(label, x, y, half, taken) {
    const box = plan.viewBox.baseVal, high = 14 * unit;
    const tx = Math.min(Math.max(x, box.x + half), box.x + box.width - half);
    for (let tries = 0; tries < 8 && taken.some(([bx, by, bh]) => Math.abs(bx - tx) < bh + half && Math.abs(by - y) < high); tries++) y -= high;
    y = Math.max(y, box.y + 8 * unit);
    taken.push([tx, y, half]);
    label.setAttribute("x", tx); label.setAttribute("y", y);
  }
  function drawEvents(spots, taken) {
    layers.events.replaceChildren(); layers.reaches.replaceChildren();
    let texts = 0;
    // Newest first: it gets the best place for its label.
    for (let i = firstAfter(now + 1) - 1; i >= 0 && events[i].ms > now - FLASH_MS; i--) {
      const event = events[i];
      if (!event.spot || !event.best) continue;
      const [index, gtin, quantity] = event.best, x = event.spot[0], y = -event.spot[1], r = 7 * unit, up = quantity < 0 ? -1 : 1;
      const near = (spots.get(index) || []).sort((a, b) => Math.hypot(a[0] - x, a[1] - y) - Math.hypot(b[0] - x, b[1] - y))[0];
      if (near) layers.reaches.append(draw("line", { class: `reach ${colour(who(index))}`, x1: near[0], y1: near[1], x2: x, y2: y }));
      layers.events.append(draw("circle", { class: "ring", cx: x, cy: y, r: (10 + 8 * Math.min(1, (now - event.ms) / 600)) * unit, opacity: Math.max(0.15, 1 - (now - event.ms) / FLASH_MS) }));
      layers.events.append(draw("polygon", { class: up < 0 ? "taken" : "returned", points: `${x},${y + up * r} ${x - r},${y - up * r} ${x + r},${y - up * r}` }));
      if (!roomy && texts++ > 0) continue;
      const text = draw("text", { class: "event-label" }, `${signed(quantity)} ${short(product(gtin), 22)}`);
      layers.events.append(text);
      putLabel(text, x, y - 20 * unit, text.getComputedTextLength() / 2 + 2 * unit, taken);
    }
  }
  function firstAfter(ms) {
    let low = 0, high = events.length;
    while (low < high) { const middle = (low + high) >> 1; if (events[middle].ms < ms) low = middle + 1; else high = middle; }
    return low;
  }
  // ---- where people and hands were ----
  const CELL = 25; // centimetres
  const duration = (s) => s >= 90 ? `${(s / 60).toFixed(s < 600 ? 1 : 0)} min` : `${s.toFixed(s < 10 ? 1 : 0)} s`;
  function presence() {
    const cells = new Map();
    for (const track of tracks) for (const stretch of track.stretches) for (let i = 0; i < stretch.xs.length; i++) {
      const key = `${Math.floor(stretch.xs[i] / CELL)},${Math.floor(stretch.ys[i] / CELL)}`;
      cells.set(key, (cells.get(key) || 0) + data.period_ms / 1000);
    }
    return cells;
  }
  let heated = null;
  function drawHeat() {
    const kind = $("heat").value;
    layers.heat.replaceChildren();
    $("scale").textContent = "";
    if (kind === "none") return;
    const spots = [];
    if (kind === "presence") {
      heated = heated || presence();
      for (const [key, s] of heated) {
        const [i, j] = key.split(",").map(Number);
        spots.push([s, draw("rect", { x: i * CELL, y: -(j + 1) * CELL, width: CELL, height: CELL })]);
      }
    } else {
      // Plates above each other are one place on the plan.
      const places = new Map();
      data.plates.forEach(([, x, y, , width, depth, yaw], i) => {
        const key = [x, y, width, depth, yaw].join();
        const place = places.get(key) || { s: 0, x, y, width, depth, yaw };
        place.s += data.reached_s[i];
        places.set(key, place);
      });
      for (const place of places.values()) if (place.s > 0) spots.push([place.s, draw("rect", { x: -place.width / 2, y: -place.depth / 2, width: place.width, height: place.depth, transform: `translate(${place.x} ${-place.y}) rotate(${-place.yaw * 180 / Math.PI})` })]);
    }
    const most = Math.max(1e-9, ...spots.map(([s]) => s));
    for (const [s, shape] of spots) {
      shape.setAttribute("class", "hot");
      shape.setAttribute("fill-opacity", (0.08 + 0.82 * Math.sqrt(s / most)).toFixed(3));
      shape.append(draw("title", {}, duration(s)));
      layers.heat.append(shape);
    }
    const total = spots.reduce((sum, [s]) => sum + s, 0);
    $("scale").textContent = spots.length ? `darkest: ${duration(most)}${kind === "presence" ? " in 25 cm" : ""}; ${duration(total)} in all` : "nothing was seen";
  }
  function drawPaths() {
    layers.paths.replaceChildren();
    if (!$("paths").checked) return;
    for (const track of tracks) for (const stretch of track.stretches) {
      const points = [];
      for (let i = 0; i < stretch.xs.length; i++) points.push(`${stretch.xs[i]},${-stretch.ys[i]}`);
      layers.paths.append(draw("polyline", { class: `trail whole ${colour(track.visit)}`, points: points.join(" ") }));
    }
  }

  // ---- people in the store and their carts ----
  let presentKey = "";
  function drawPresent(seen) {
    const carts = new Map(), end = firstAfter(now + 1);
    for (let i = 0; i < end; i++) {
      const best = events[i].best;
      if (best && best[3] >= 0.5 && best[0] >= 0) carts.set(best[0], (carts.get(best[0]) || 0) - best[2]);
    }
    const list = [...seen].sort((a, b) => a.visit.label.localeCompare(b.visit.label) || a.id - b.id);
    const key = list.map((track) => `${track.id}:${carts.get(track.visit.index) || 0}:${track === chosen}`).join();
    if (key === presentKey) return;
    presentKey = key;
    $("present").replaceChildren(...(list.length ? list.map((track) => {
      const n = Math.max(0, carts.get(track.visit.index) || 0);
      return make("button", { type: "button", class: `person${track === chosen ? " chosen" : ""}`, "aria-pressed": String(track === chosen), on: { click: () => choose(track) } },
        badge(track.visit), make("b", {}, track.visit.label), make("span", { class: "soft" }, track.visit.index < 0 ? "" : track.visit.kind === "shopper" ? count(n) : track.visit.kind, track.visit.kind === "shopper" && track.visit.index >= 0 ? make("span", { class: "word" }, n === 1 ? " item" : " items") : null));
    }) : [make("span", { class: "soft" }, "No people in view at this moment.")]));
  }

  // ---- list of shelf events; only the rows around the present moment exist ----
  const WINDOW = 240;
  let shownFrom = -1, shownTo = -1, currentRow = -2;
  function sign(quantity) {
    const svg = draw("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" });
    if (!quantity) svg.append(draw("path", { class: "key-nothing", d: "M1.5 6H10.5" }));
    else svg.append(draw("polygon", quantity < 0 ? { class: "key-taken", points: "6,1.5 11,10.5 1,10.5" } : { class: "key-returned", points: "6,10.5 11,1.5 1,1.5" }));
    return svg;
  }
  function eventRow(event, i) {
    const best = event.best;
    const others = event.candidates.slice(best ? 1 : 0).filter((c) => c[3] >= 0.01).map((c) => `${who(c[0]).label}: ${signed(c[2])} ${short(product(c[1]), 26)} ${percent(c[3])}`);
    if (best && event.nothing >= 0.01) others.push(`nothing moved ${percent(event.nothing)}`);
    const facts = [clock(event.ms), `plate ${event.plate}`, event.grams === null ? null : `${event.grams < 0 ? "\u2212" : "+"}${Math.abs(event.grams).toFixed(0)} g`, event.final ? null : "not final"].filter(Boolean).join(" \u00b7 ");
    return make("li", {}, make("button", { type: "button", class: "event", "data-row": i, tabindex: -1, on: { click: () => { seek(event.ms + 50); } } },
      sign(best ? best[2] : 0),
      make("span", { class: "product", title: best ? product(best[1]) : null }, best ? `${signed(best[2])} ${product(best[1])}` : "nothing moved"),
      make("span", { class: `sure${event.sure < DOUBT ? " doubt" : ""}` }, `${event.sure < DOUBT ? "? " : ""}${percent(event.sure)}`),
      make("span", { class: "by" }, best ? badge(who(best[0])) : null, best ? `${who(best[0]).label} ${verb(best[2])}` : null, make("span", {}, facts)),
      others.length ? make("span", { class: "others" }, "or " + others.join("; ")) : null));
  }
  function drawActivity(scroll) {
    const list = $("activity"), current = firstAfter(now + 1) - 1;
    const near = (shownFrom === 0 || current >= shownFrom + 40) && (shownTo === events.length || current < shownTo - 40);
    if (shownFrom < 0 || !near) {
      shownFrom = Math.max(0, current - WINDOW / 2); shownTo = Math.min(events.length, shownFrom + WINDOW);
      list.replaceChildren(...(events.length ? events.slice(shownFrom, shownTo).map((event, k) => eventRow(event, shownFrom + k)) : [make("li", { class: "empty" }, "No shelf reported a change.")]));
      currentRow = -2;
    }
    if (current === currentRow) return;
    currentRow = current;
    for (const row of list.querySelectorAll(".event")) {
      const i = Number(row.dataset.row);
      row.classList.toggle("future", i > current);
      row.classList.toggle("now", i === current);
      if (i === current) {
        row.setAttribute("aria-current", "true");
        if (scroll) list.scrollTop = row.offsetTop - list.offsetTop - list.clientHeight / 3;
      } else row.removeAttribute("aria-current");
    }
    if (current < 0 && scroll) list.scrollTop = 0;
  }
  $("activity-count").textContent = count(events.length);

  // ---- time ----
  const slider = $("time"), speed = $("speed");
  slider.max = lengthMs;
  function drawStrip() {
    const N = 400, crowd = new Float32Array(N), strip = $("strip");
    for (const track of tracks) for (const stretch of track.stretches) {
      const from = Math.floor(stretch.start / lengthMs * (N - 1)), to = Math.ceil(stretch.end / lengthMs * (N - 1));
      for (let i = Math.max(0, from); i <= Math.min(N - 1, to); i++) crowd[i]++;
    }
    const most = Math.max(1, ...crowd), top = (n) => 22 - 20 * n / most;
    let d = "M0 22";
    for (let i = 0; i < N; i++) d += `L${i} ${top(crowd[i]).toFixed(1)}L${i + 1} ${top(crowd[i]).toFixed(1)}`;
    strip.setAttribute("viewBox", `0 0 ${N} 30`);
    strip.append(draw("path", { class: "crowd", d: d + `L${N} 22Z` }));
    const done = new Set();
    for (const event of events) {
      const x = Math.round(event.ms / lengthMs * N * 2) / 2, doubt = event.sure < DOUBT, key = `${x}${doubt}`;
      if (done.has(key)) continue;
      done.add(key);
      strip.append(draw("line", { class: `tick${doubt ? " doubt" : ""}`, x1: x, x2: x, y1: doubt ? 18 : 23, y2: 29 }));
    }
  }
  function render(scroll = true) {
    const { seen, spots, taken } = drawPeople();
    drawEvents(spots, taken);
    drawPresent(seen);
    drawChosen();
    drawActivity(scroll);
    slider.value = now;
    slider.style.setProperty("--done", `${100 * now / lengthMs}%`);
    slider.setAttribute("aria-valuetext", `${span(now)}, ${plural(seen.size, "person", "people")} in view`);
    $("clock").replaceChildren(clock(now), make("small", {}, `${span(now)} of ${span(lengthMs)}`));
  }
  function seek(ms) {
    now = Math.min(Math.max(ms, 0), lengthMs);
    render();
  }
  function setPlaying(on) {
    playing = on;
    if (on && now >= lengthMs) now = 0;
    $("play").setAttribute("aria-label", on ? "Pause" : "Play");
    $("play-icon").setAttribute("d", on ? "M7 5h4v14H7zM13 5h4v14h-4z" : "M8 5v14l11-7z");
    if (on) { last = null; requestAnimationFrame(advance); }
  }
  function advance(at) {
    if (!playing) return;
    // A hidden tab resumes where it was.
    if (last !== null) now = Math.min(lengthMs, now + Math.min(at - last, 250) * Number(speed.value));
    last = at;
    render();
    if (now >= lengthMs) setPlaying(false); else requestAnimationFrame(advance);
  }
  slider.addEventListener("input", () => seek(Number(slider.value)));
  $("play").addEventListener("click", () => setPlaying(!playing));
  $("paths").addEventListener("change", drawPaths);
  $("names").addEventListener("change", () => $("layer-names").toggleAttribute("hidden", !$("names").checked));
  $("heat").addEventListener("change", drawHeat);
  function changeSpeed(by) { speed.selectedIndex = Math.min(Math.max(speed.selectedIndex + by, 0), speed.options.length - 1); }
  /* Lists by arrow keys: from event to event, which the plan follows, and from receipt to receipt. */
  function stepList(key) {
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[key.key];
    if (by === undefined) return false;
    const list = key.target.closest("#activity");
    if (list && events.length) {
      const row = key.target.closest(".event"), from = row ? Number(row.dataset.row) : firstAfter(now + 1) - 1;
      const to = Math.min(Math.max(from + by, 0), events.length - 1);
      seek(events[to].ms + 50);
      // Several events may share an instant; the one that was stepped to keeps the focus.
      list.querySelector(`[data-row="${to}"]`)?.focus({ preventScroll: true });
      return true;
    }
    if (key.target.matches("#receipts summary")) {
      const summaries = [...$("receipts").querySelectorAll(".receipt > summary")], at = summaries.indexOf(key.target);
      if (at < 0) return false;
      summaries[Math.min(Math.max(at + by, 0), summaries.length - 1)].focus();
      return true;
    }
    return false;
  }
  document.addEventListener("keydown", (key) => {
    if (key.ctrlKey || key.metaKey || key.altKey) return;
    if (stepList(key)) { key.preventDefault(); return; }
    const on = key.target.closest ? key.target.closest("button, select, summary, input[type=checkbox]") : null;
    const jump = key.shiftKey ? 30000 : 5000;
    const actions = {
      " ": on ? null : () => setPlaying(!playing),
      ArrowLeft: () => seek(now - jump), ArrowRight: () => seek(now + jump),
      ArrowUp: on || key.target.id !== "activity" ? () => changeSpeed(1) : null, ArrowDown: on || key.target.id !== "activity" ? () => changeSpeed(-1) : null,
      Home: () => seek(0), End: () => seek(lengthMs),
      "+": () => zoomTo(zoom * ZOOM_STEP), "=": () => zoomTo(zoom * ZOOM_STEP), "-": () => zoomTo(zoom / ZOOM_STEP), 0: () => zoomTo(1),
      w: zoom > 1 ? () => moveBy(0, -1) : null, s: zoom > 1 ? () => moveBy(0, 1) : null, a: zoom > 1 ? () => moveBy(-1, 0) : null, d: zoom > 1 ? () => moveBy(1, 0) : null,
      Escape: chosen ? () => choose(chosen) : null,
      n: () => { const i = firstAfter(now + 51); if (i < events.length) seek(events[i].ms + 50); },
      p: () => { const i = firstAfter(now - 51) - 1; if (i >= 0) seek(events[i].ms + 50); },
    };
    const action = actions[key.key] || actions[key.key.toLowerCase()];
    // A select moves by its own arrows; elsewhere the arrows up and down scroll the page unless the plan has the focus.
    if (!action || (on && on.tagName === "SELECT") || (/^Arrow(Up|Down)|Home|End$/.test(key.key) && !key.target.closest(".plan"))) return;
    key.preventDefault();
    action();
  });

  // ---- receipts ----
  const differs = (r) => r.difference && r.difference.length > 0;
  const filters = [["all", "All", () => true], ["review", "Review", (r) => r.status !== "settled"], ["settled", "Settled", (r) => r.status === "settled"]];
  if (data.compared) filters.push(["wrong", "Differ from truth", (r) => differs(r) || r.missed]);
  const missed = data.missed.map((m) => ({ ...m, missed: true, status: "missing", lines: [], total: 0, who: -1 }));
  const allReceipts = [...data.receipts, ...missed];
  const deviation = (rows) => rows.map(([gtin, n]) => `${n > 0 ? "charged" : "missed"} ${Math.abs(n)} \u00d7 ${product(gtin)}`).join("; ");
  const plates = new Map(data.plates.map(([name, x, y, z, width, depth, yaw]) => [name, { x, y, z, width, depth, yaw }]));
  let kept = null;
  // Read when the first receipt is opened: it is most of the page.
  function keptOf(id) {
    kept = kept || new Map(JSON.parse(data.evidence).map((row) => [row[0], row]));
    return kept.get(id);
  }
  function eventOf([id, alternatives, nothing, wrists, plate, contact]) {
    const row = keptOf(id), whose = new Map(wrists);
    const triples = (text) => {
      const flat = Evidence.unpack(text), points = [];
      for (let i = 0; i < flat.length; i += 3) points.push(flat[i] === null ? null : flat.slice(i, i + 3));
      return points;
    };
    return {
      contact, plate, nothing, settled_ms: row ? row[2] : 0,
      traces: row ? row[3].map(([name, delta_g, start_ms, rate_hz, unit_g, text]) => ({ plate: name, delta_g, start_ms, rate_hz, grams: Evidence.unpack(text).map((n) => n === null ? null : n * unit_g) })) : null,
      wrists: row ? row[4].map(([track, times, left, right]) => ({ who: whose.get(track) ?? -1, times_ms: Evidence.unpack(times), left: triples(left), right: triples(right) })) : [],
      alternatives: alternatives.map(([index, gtin, quantity, p]) => ({ who: index, gtin, quantity, p })),
    };
  }
  const lookOf = (index) => ({ label: who(index).label, number: who(index).number, colour: colour(who(index)) });
  const concerns = (r, gtin) => (r.evidence || []).filter((event) => event[1].some((candidate) => candidate[0] === r.who && (gtin === null ? !r.lines.some((line) => line[0] === candidate[1]) : candidate[1] === gtin)));
  function evidenceOf(r, events, title) {
    const node = make("details", { class: "why-line" }, make("summary", {}, title));
    node.addEventListener("toggle", () => {
      if (!node.open || node.children.length > 1) return;
      const context = { plates, who: lookOf, badge: (person) => make("span", { class: `badge ${person.colour}`, "aria-hidden": "true" }, person.number), product, mine: r.who };
      for (const row of events) {
        const event = eventOf(row);
        const heading = make("button", { type: "button", class: "link", on: { click: () => { seek(event.contact + 50); $("plan").scrollIntoView({ block: "nearest" }); } } }, `${clock(event.contact)} \u00b7 plate ${event.plate}`);
        node.append(Evidence.show(event, context, heading));
      }
    });
    return node;
  }
  function lineRows(r, line) {
    const found = concerns(r, line[0]), seen = (r.sightings || []).filter((sighting) => sighting[4] === line[0]);
    const rows = [receiptLine(line)];
    if (found.length) rows.push(make("tr", { class: "inner" }, make("td", { colspan: 4 }, evidenceOf(r, found, `Evidence: ${plural(found.length, "shelf event")}`))));
    for (const [ms, source, , zone, , quantity, p] of seen) rows.push(make("tr", { class: "inner" }, make("td", { colspan: 4, class: "soft" }, `${clock(ms)} \u00b7 ${source} in ${zone} reported ${quantity}, ${percent(p)} sure`)));
    return rows;
  }
  function receiptLine([gtin, quantity, price, sure]) {
    return make("tr", {}, make("td", {}, product(gtin), make("small", {}, gtin)), make("td", { class: "number" }, `${quantity} \u00d7 ${money(price, true)}`),
      make("td", { class: `number${sure < DOUBT ? " low" : ""}` }, make("span", { class: "bar", style: `--p:${Math.round(100 * sure)}%`, "aria-hidden": "true" }), percent(sure)), make("td", { class: "number" }, money(quantity * price, true)));
  }
  function receiptNode(r) {
    const visit = who(r.who), n = r.lines.reduce((m, line) => m + line[1], 0);
    const name = r.account !== null && r.account !== undefined ? r.account : visit.index >= 0 ? visit.label : "unknown person";
    const status = r.missed ? pill("bad", "\u2717", "no receipt") : r.status === "settled" ? pill("good", "\u2713", "settled") : pill("warn", "!", r.status);
    const truth = r.missed || r.difference === undefined ? null : differs(r) ? pill("bad", "\u2260", "truth") : pill("", "=", "truth");
    const when = [r.enter === null || r.enter === undefined ? "entry not seen" : clock(r.enter), clock(r.exit)].join(" \u2013 ");
    const node = make("details", { class: "receipt" }, make("summary", {}, badge(visit), make("span", { class: "name", title: name }, name), make("span", { class: "sum" }, r.missed ? "\u2013" : money(r.total)),
      make("span", { class: "meta" }, `${when} \u00b7 ${plural(n, "item")}`), make("span", { class: "pills" }, truth, status)));
    // The inside is made when it is first opened: a long day has thousands of them.
    node.addEventListener("toggle", () => {
      if (!node.open || node.querySelector(".body")) return;
      const body = make("div", { class: "body" });
      const reasons = r.reason ? r.reason.split("; ") : [];
      if (reasons.length === 1) body.append(make("p", { class: "why" }, `Review: ${reasons[0]}`));
      else if (reasons.length) body.append(make("div", { class: "why" }, "Review:", make("ul", {}, ...reasons.map((reason) => make("li", {}, reason)))));
      if (differs(r)) body.append(make("p", { class: "why bad" }, `Truth: ${deviation(r.difference)}`));
      if (r.lines.length) body.append(make("table", {}, make("thead", {}, make("tr", {}, ...[["Product", ""], ["Quantity", "number"], ["Sure", "number"], [data.money.currency, "number"]].map(([text, kind]) => make("th", { scope: "col", class: kind }, text)))), make("tbody", {}, ...r.lines.flatMap((line) => lineRows(r, line)))));
      else if (!r.missed && !(r.unidentified || []).length) body.append(make("p", { class: "soft" }, "Nothing was taken."));
      if ((r.unidentified || []).length) body.append(Page.unidentified(r.unidentified.map((index) => [badge(who(index)), ` ${who(index).label}`])));
      const beside = concerns(r, null);
      if (beside.length) body.append(evidenceOf(r, beside, `Not on the bill: ${plural(beside.length, "shelf event")}`));
      if (r.evidence_left_out) body.append(make("p", { class: "soft" }, `${plural(r.evidence_left_out, "event")} more not kept`));
      if (!r.missed) body.append(make("p", { class: "soft", style: "margin-top:8px;font-size:12px" }, `Visit ${r.visit}, final ${span(r.issued - r.exit)} after leaving`));
      node.append(body);
    });
    return node;
  }
  let filter = filters[0];
  function drawReceipts(n = 120) {
    const rows = allReceipts.filter(filter[2]).sort((a, b) => a.exit - b.exit);
    $("receipts").replaceChildren(...rows.slice(0, n).map(receiptNode));
    $("receipts").nextElementSibling?.remove();
    if (rows.length > n) $("receipts").after(make("button", { type: "button", class: "more", on: { click: () => drawReceipts(n + 400) } }, `Show more (${count(rows.length - n)})`));
    if (!rows.length) $("receipts").append(make("p", { class: "empty" }, allReceipts.length ? "None of this kind." : "No receipts."));
    $("filters").replaceChildren(...filters.map((choice) => make("button", { type: "button", "aria-pressed": String(choice === filter), on: { click: () => { filter = choice; drawReceipts(); $("filters").querySelector("[aria-pressed=true]").focus(); } } }, `${choice[1]} ${count(allReceipts.filter(choice[2]).length)}`)));
  }

  // ---- warnings, engine ----
  const cut = (kind) => data.left_out[kind] ? ` (${count(data.left_out[kind])} more not kept)` : "";
  $("warnings-count").textContent = count(data.warnings.length) + cut("warnings");
  $("warnings").append(...(data.warnings.length ? data.warnings.slice(0, 500).map(([ms, kind, subject, message]) => make("div", { class: "warning" }, make("span", { class: "soft" }, clock(ms)), make("div", {}, make("b", {}, `! ${kind}: ${subject}`), make("p", {}, message)))) : [make("p", { class: "empty" }, "None: every sensor behaved.")]));
  const table = (rows) => make("table", {}, make("tbody", {}, ...rows.map(([name, value]) => make("tr", {}, make("td", {}, name), make("td", { class: "number" }, value)))));
  const s = data.summary, seconds = (v) => v === null ? "\u2013" : `${v.toFixed(1)} s`;
  const ignored = Object.entries(s.ignored);
  $("engine").append(make("div", { class: "rows" },
    table([["Frames, of all cameras", count(s.frames)], ["Weight messages", count(s.messages)], ["Run time", seconds(s.wall_s)], ["of it the engine\u2019s own", seconds(s.engine_cpu_s)],
      ["Faster than the store", s.wall_s ? `${(lengthMs / 1000 / s.wall_s).toFixed(1)} \u00d7` : "\u2013"], ["Step: median, p99, worst", ["p50", "p99", "max"].map((k) => brief(step[k] || 0)).join(" / ")]]),
    make("h3", {}, "Inputs that were not used"), ignored.length ? table(ignored.map(([reason, n]) => [reason, count(n)])) : make("p", { class: "soft" }, "None.")));
  // ---- stock at the end ----
  const stockSigns = { ok: ["good", "\u2713"], empty: ["warn", "0"], misplaced: ["warn", "?"], overdrawn: ["bad", "\u2212"] };
  const kinds = [["all but ok", (row) => row[5] !== "ok"], ["all", () => true], ...["empty", "misplaced", "overdrawn"].map((kind) => [kind, (row) => row[5] === kind])];
  let kind = kinds[0];
  function drawStock(n = 60) {
    const rows = data.shelves.filter(kind[1]);
    $("stock").replaceChildren(rows.length ? make("table", {}, make("thead", {}, make("tr", {}, ...[["Plate", ""], ["Product", ""], ["Pieces", "number"], ["Sure", "number"], ["", "number"]].map(([text, side]) => make("th", { scope: "col", class: side }, text)))),
      make("tbody", {}, ...rows.slice(0, n).map(([plate, gtin, pieces, overdrawn, planned, status, sure]) => make("tr", {}, make("td", {}, plate), make("td", {}, product(gtin), planned ? null : make("small", {}, "not planned here")),
        make("td", { class: "number" }, overdrawn ? `\u2212${overdrawn}` : count(pieces)), make("td", { class: "number" }, percent(sure)), make("td", { class: "number" }, pill(stockSigns[status]?.[0] || "", stockSigns[status]?.[1] || "", status))))))
      : make("p", { class: "empty" }, data.shelves.length ? "None: all planned goods are where they should be." : "Stock was not reported."));
    if (rows.length > n) $("stock").append(make("button", { type: "button", class: "more", on: { click: () => drawStock(n + 500) } }, `Show more (${count(rows.length - n)})`));
    $("stock-filters").replaceChildren(...kinds.filter((choice) => choice === kinds[0] || choice === kinds[1] || data.shelves.some(choice[1])).map((choice) => make("button", { type: "button", "aria-pressed": String(choice === kind), on: { click: () => { kind = choice; drawStock(); $("stock-filters").querySelector("[aria-pressed=true]").focus(); } } }, `${choice[0]} ${count(data.shelves.filter(choice[1]).length)}`)));
  }

  // ---- health of the sensors over time ----
  function drawHealth() {
    const h = data.health, times = h.times, n = times.length;
    if (!n) { $("health").append(make("p", { class: "empty" }, "Not reported.")); return; }
    const W = 600, x = (ms) => W * ms / lengthMs, until = (i) => i + 1 < n ? times[i + 1] : lengthMs;
    // One strip for each sensor: faults stand out by height and by word, not by colour alone.
    const strip = (spans, label) => {
      const svg = draw("svg", { viewBox: `0 0 ${W} 14`, preserveAspectRatio: "none", class: "state", role: "img" });
      svg.append(draw("title", {}, label), draw("rect", { class: "fine", x: 0, y: 5, width: W, height: 4 }));
      for (const [from, to, state] of spans) svg.append(draw("rect", { class: "fault", x: x(from), y: state === "down" || state === "silent" ? 0 : 2, width: Math.max(1.5, x(to) - x(from)), height: state === "down" || state === "silent" ? 14 : 10 }));
      return svg;
    };
    const summary = (spans) => { const names = [...new Set(spans.map((span) => span[2]))]; return names.length ? names.map((name) => `! ${name}`).join(", ") : "\u2713 fine"; };
    const rows = h.cameras.map((name, i) => {
      const states = Evidence.unpack(h.states[i]), offsets = Evidence.unpack(h.offset_tenth_ms[i]), residuals = Evidence.unpack(h.residual_mm[i]), spans = [];
      states.forEach((state, k) => {
        if (!state) return;
        const word = h.camera_states[state], before = spans[spans.length - 1];
        if (before && before[1] === times[k] && before[2] === word) before[1] = until(k); else spans.push([times[k], until(k), word]);
      });
      return make("tr", {}, make("td", {}, name), make("td", { class: "wide" }, strip(spans, `${name}: ${summary(spans)}`)), make("td", {}, summary(spans)),
        make("td", { class: "number" }, `${(offsets[n - 1] / 10).toFixed(1)} ms`), make("td", { class: "number" }, `${(residuals[n - 1] / 10).toFixed(1)} cm`));
    });
    const byPlate = new Map();
    for (const [plate, ms, fault] of h.plate_changes) byPlate.set(plate, [...(byPlate.get(plate) || []), [ms, h.plate_faults[fault]]]);
    for (const [plate, changes] of byPlate) {
      const spans = changes.map(([ms, fault], k) => [ms, k + 1 < changes.length ? changes[k + 1][0] : lengthMs, fault]).filter((span) => span[2]);
      rows.push(make("tr", {}, make("td", {}, `plate ${data.plates[plate][0]}`), make("td", { class: "wide" }, strip(spans, summary(spans))), make("td", {}, summary(spans)), make("td", {}), make("td", {})));
    }
    const well = data.counts.plates - byPlate.size;
    $("health").append(make("table", {}, make("thead", {}, make("tr", {}, ...[["Sensor", ""], [`${clock(0)} \u2013 ${clock(lengthMs)}`, ""], ["State", ""], ["Clock", "number"], ["Residual", "number"]].map(([text, side]) => make("th", { scope: "col", class: side }, text)))), make("tbody", {}, ...rows)),
      make("p", { class: "soft under" }, `${plural(well, "plate")} reported without a fault.`));
    drawLatency(h, x, W);
  }
  function drawLatency(h, x, W) {
    const H = 90, top = Math.max(...h.step_us.map((row) => row[2]), 1), y = (us) => H - 14 - (H - 24) * Math.log10(Math.max(us, 10) / 10) / Math.log10(Math.max(top, 100) / 10);
    const svg = draw("svg", { viewBox: `0 0 ${W} ${H}`, class: "latency", role: "img" });
    svg.append(draw("title", {}, `Time of an engine step over the run: median, 99th percentile and longest of every ${h.times.length > 1 ? span(h.times[1] - h.times[0]) : "period"}`));
    for (let us = 10; us <= Math.max(top, 100); us *= 10) svg.append(draw("line", { class: "grid", x1: 0, x2: W, y1: y(us), y2: y(us) }), draw("text", { class: "axis", x: 2, y: y(us) - 5 }, us >= 1000 ? `${us / 1000} ms` : `${us} \u00b5s`));
    ["p50", "p99", "max"].forEach((name, k) => svg.append(draw("polyline", { class: `step ${name}`, points: h.step_us.map((row, i) => row[2] > 0 ? `${x(h.times[i]).toFixed(1)},${y(row[k]).toFixed(1)}` : null).filter(Boolean).join(" ") })));
    $("engine").prepend(make("div", { class: "rows" }, make("h3", {}, "Time of a step: solid median, dashed 99th percentile, dotted longest"), svg));
  }

  $("foot").textContent = `fusion ${s.version}` + (data.left_out.events ? `; ${count(data.left_out.events)} more shelf events not kept` : "") + (data.left_out.receipts ? `; ${count(data.left_out.receipts)} more receipts not kept` : "");

  // On paper everything is open: reasons and lines of receipts, all events, all of what scrolls on a screen.
  addEventListener("beforeprint", () => {
    drawReceipts(Infinity);
    for (const receipt of $("receipts").children) receipt.open = true;
    shownFrom = 0; shownTo = events.length;
    $("activity").replaceChildren(...events.map(eventRow));
  });
  addEventListener("afterprint", () => { shownFrom = shownTo = -1; currentRow = -2; drawReceipts(); render(false); });

  measure();
  drawStrip();
  drawReceipts();
  drawStock();
  drawHealth();
  // #t=12.5 opens at that second; otherwise at the first thing that happened, so that the plan is not empty.
  const asked = /[#&]t=([\d.]+)/.exec(location.hash);
  seek(asked ? Number(asked[1]) * 1000 : events.length ? events[0].ms + 50 : tracks.length ? tracks[0].start : 0);
  new ResizeObserver(() => { measure(); presentKey = ""; render(false); }).observe(plan);
  document.documentElement.dataset.ready = "true";
})();
