// The evidence of a shelf event, as a reviewer looks at it: weights with the settled change, hands around the plate, and
// who it may have been. For the report of a run and for the console.
const Evidence = (() => {
  const { make, draw, percent, signed } = Page;
  const grams = (g) => `${g < 0 ? "\u2212" : "+"}${Math.abs(g).toFixed(Math.abs(g) < 100 ? 1 : 0)} g`;

  // int16, little-endian, as base64; null where a number is unknown.
  function unpack(text) {
    const bytes = atob(text), numbers = new Array(bytes.length / 2);
    for (let i = 0; i < numbers.length; i++) {
      const n = ((bytes.charCodeAt(2 * i) | (bytes.charCodeAt(2 * i + 1) << 8)) << 16) >> 16;
      numbers[i] = n === -32768 ? null : n;
    }
    return numbers;
  }

  const WIDTH = 300;
  function drawTrace(trace, event) {
    const height = 74, from = -2000, to = 2500, x = (ms) => 4 + (WIDTH - 8) * (ms - from) / (to - from);
    const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${height}`, class: "trace", role: "img" });
    const title = `Plate ${trace.plate}: ${grams(trace.delta_g)}`;
    svg.append(draw("title", {}, title));
    const settled = Math.min(Math.max(event.settled_ms, from), to);
    svg.append(draw("rect", { class: "rest", x: x(settled), y: 14, width: Math.max(0, x(to) - x(settled)), height: height - 26 }));
    if (trace.grams.length) {
      const known = trace.grams.filter((g) => g !== null);
      // The change is drawn from where the plate came to rest, since it may have been moving already before the contact.
      const rested = trace.grams.filter((g, i) => g !== null && trace.start_ms + 1000 * i / trace.rate_hz >= event.settled_ms);
      const after = rested.length ? rested.reduce((sum, g) => sum + g, 0) / rested.length : (known[0] ?? 0) + trace.delta_g, before = after - trace.delta_g;
      const low = Math.min(before, after, ...known), high = Math.max(before, after, ...known), room = Math.max(high - low, 10);
      const y = (g) => 18 + (height - 34) * (1 - (g - low) / room);
      svg.append(draw("line", { class: "level", x1: x(from), x2: x(to), y1: y(before), y2: y(before) }));
      svg.append(draw("line", { class: "level", x1: x(from), x2: x(to), y1: y(after), y2: y(after) }));
      const points = trace.grams.map((g, i) => g === null ? null : `${x(trace.start_ms + 1000 * i / trace.rate_hz).toFixed(1)},${y(g).toFixed(1)}`).filter(Boolean);
      svg.append(draw("polyline", { class: "weight", points: points.join(" ") }));
    }
    svg.append(draw("line", { class: "contact", x1: x(0), x2: x(0), y1: 14, y2: height - 12 }));
    svg.append(draw("text", { class: "says", x: 4, y: 8 }, title), draw("text", { class: "axis", x: x(0), y: height - 5 }, "contact"));
    svg.append(draw("text", { class: "axis end", x: x(to), y: height - 5 }, "+2.5 s"), draw("text", { class: "axis start", x: x(from), y: height - 5 }, "\u22122 s"));
    if (!trace.grams.length) svg.append(draw("text", { class: "axis", x: WIDTH / 2, y: 40 }, "no samples kept"));
    return svg;
  }

  // From above, centred on the plate, with its front edge below: hands as paths, a dot where each was at the contact.
  function hands(event, context) {
    const plate = context.plates.get(event.plate);
    if (!plate) return null;
    const height = 200, reach = 110, k = WIDTH / (2 * reach) , c = Math.cos(plate.yaw), s = Math.sin(plate.yaw);
    const place = (px, py) => {
      const dx = px - plate.x, dy = py - plate.y;
      return [WIDTH / 2 + k * (c * dx + s * dy), 62 - k * (c * dy - s * dx)];
    };
    const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${height}`, class: "hands", role: "img" });
    for (const neighbour of context.plates.values()) {
      if (Math.hypot(neighbour.x - plate.x, neighbour.y - plate.y) > 2 * reach || (neighbour !== plate && Math.abs(neighbour.z - plate.z) > 5)) continue;
      const nc = Math.cos(neighbour.yaw), ns = Math.sin(neighbour.yaw);
      const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([i, j]) => {
        const u = i * neighbour.width / 2, v = j * neighbour.depth / 2;
        return place(neighbour.x + nc * u - ns * v, neighbour.y + ns * u + nc * v).map((n) => n.toFixed(1)).join();
      });
      svg.append(draw("polygon", { class: neighbour === plate ? "plate this" : "plate", points: corners.join(" ") }));
      svg.append(draw("polyline", { class: "front", points: corners.slice(0, 2).join(" ") }));
    }
    const descriptions = [];
    for (const path of event.wrists) {
      const person = context.who(path.who);
      for (const [side, points] of [["left", path.left], ["right", path.right]]) {
        const seen = points.map((point) => point && place(point[0], point[1]));
        const line = seen.filter(Boolean).map((point) => point.map((n) => n.toFixed(1)).join());
        if (!line.length) continue;
        svg.append(draw("polyline", { class: `wrist ${side} ${person.colour}`, points: line.join(" ") }));
        let at = -1;
        path.times_ms.forEach((ms, i) => { if (seen[i] && (at < 0 || Math.abs(ms) < Math.abs(path.times_ms[at]))) at = i; });
        const over = Math.round(points[at][2] - plate.z);
        svg.append(draw("circle", { class: `hand ${person.colour}`, cx: seen[at][0], cy: seen[at][1], r: 7 }), draw("text", { class: "number-in", x: seen[at][0], y: seen[at][1] + 0.5 }, person.number));
        descriptions.push(`${person.label}: ${side} hand ${over} cm above the plate`);
      }
    }
    svg.append(draw("title", {}, descriptions.length ? `Hands at the contact. ${descriptions.join("; ")}` : "No hands were seen"));
    svg.append(draw("text", { class: "axis end", x: WIDTH - 4, y: height - 6 }, "1 m"), draw("line", { class: "scale", x1: WIDTH - 30 - 100 * k, x2: WIDTH - 30, y1: height - 6, y2: height - 6 }));
    if (!descriptions.length) svg.append(draw("text", { class: "axis", x: WIDTH / 2, y: 130 }, "no hands seen"));
    return svg;
  }

  // The shelf as a person before it sees it: plates as lines, hands as paths, a dot where each was at the contact.
  function front(event, context) {
    const plate = context.plates.get(event.plate);
    if (!plate) return null;
    const height = 200, reach = 110, k = WIDTH / (2 * reach), c = Math.cos(plate.yaw), s = Math.sin(plate.yaw);
    const along = (px, py) => c * (px - plate.x) + s * (py - plate.y), behind = (px, py) => c * (py - plate.y) - s * (px - plate.x);
    const place = (px, py, pz) => [WIDTH / 2 + k * along(px, py), 110 - k * (pz - plate.z)];
    const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${height}`, class: "hands front-view", role: "img" });
    for (const neighbour of context.plates.values()) {
      const same = Math.abs(behind(neighbour.x, neighbour.y)) < 25 && Math.abs(along(neighbour.x, neighbour.y)) < 1.2 * reach && Math.abs(Math.sin(neighbour.yaw - plate.yaw)) < 0.1;
      if (!same) continue;
      const [u, v] = place(neighbour.x, neighbour.y, neighbour.z);
      svg.append(draw("rect", { class: neighbour === plate ? "plate this" : "plate", x: u - k * neighbour.width / 2, y: v, width: k * neighbour.width, height: 4 }));
    }
    const descriptions = [];
    for (const path of event.wrists) {
      const person = context.who(path.who);
      for (const [side, points] of [["left", path.left], ["right", path.right]]) {
        // Hands that are not before this shelf would be drawn over it.
        const seen = points.map((point) => point && Math.abs(behind(point[0], point[1])) < 90 ? place(...point) : null);
        const line = seen.filter(Boolean).map((point) => point.map((n) => n.toFixed(1)).join());
        if (!line.length) continue;
        svg.append(draw("polyline", { class: `wrist ${side} ${person.colour}`, points: line.join(" ") }));
        let at = -1;
        path.times_ms.forEach((ms, i) => { if (seen[i] && (at < 0 || Math.abs(ms) < Math.abs(path.times_ms[at]))) at = i; });
        svg.append(draw("circle", { class: `hand ${person.colour}`, cx: seen[at][0], cy: seen[at][1], r: 7 }), draw("text", { class: "number-in", x: seen[at][0], y: seen[at][1] + 0.5 }, person.number));
        descriptions.push(`${person.label}: ${side} hand`);
      }
    }
    if (!descriptions.length) return null;
    svg.append(draw("title", {}, `The shelf from the front. ${descriptions.join("; ")}`), draw("text", { class: "axis start", x: 4, y: height - 6 }, "from the front"));
    return svg;
  }

  function alternatives(event, context) {
    const rows = event.alternatives.filter((candidate) => candidate.p >= 0.005).map((candidate) => {
      const person = context.who(candidate.who);
      return [person, `${signed(candidate.quantity)} ${context.product(candidate.gtin)}`, candidate.p, context.mine !== undefined && candidate.who === context.mine];
    });
    if (event.nothing >= 0.005) rows.push([null, "nothing was moved", event.nothing, false]);
    // Most probable first, also where that is that nothing was moved.
    rows.sort((a, b) => b[2] - a[2]);
    return make("table", { class: "alternatives" }, make("tbody", {}, ...rows.map(([person, action, p, mine]) =>
      make("tr", { class: mine ? "mine" : null }, make("td", {}, person ? context.badge(person) : null, person ? ` ${person.label}` : ""), make("td", {}, action),
        make("td", { class: "number" }, bar(p), percent(p))))));
  }
  // A drawn bar, so that a page whose policy forbids style attributes can show it too.
  function bar(p) {
    const svg = draw("svg", { viewBox: "0 0 34 4", class: "meter", "aria-hidden": "true" });
    svg.append(draw("rect", { class: "meter-all", width: 34, height: 4, rx: 2 }), draw("rect", { class: "meter-is", width: (34 * Math.min(Math.max(p, 0), 1)).toFixed(1), height: 4, rx: 2 }));
    return svg;
  }

  /* event: {contact, plate, settled_ms, traces: [{plate, delta_g, start_ms, rate_hz, grams}], nothing,
       wrists: [{who, times_ms, left, right}] in cm, alternatives: [{who, gtin, quantity, p}]}; times in ms from contact.
     context: {plates: Map of {x, y, z, width, depth in cm, yaw}, who(key) -> {label, number, colour}, badge(person),
       product(gtin), mine: whose bill it is}. */
  function show(event, context, heading) {
    const pictures = event.traces === null ? [make("p", { class: "soft" }, "Weights and hands of this event were not kept.")]
      : [make("div", { class: "traces" }, ...event.traces.slice(0, 4).map((trace) => drawTrace(trace, event))), hands(event, context), front(event, context)];
    return make("div", { class: "evidence" }, make("p", { class: "heading" }, heading), alternatives(event, context), make("div", { class: "pictures" }, ...pictures));
  }
  return { unpack, bar, show };
})();
