"use strict";
// Elements, numbers and times for the report of a run and for the console.
const Page = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  // Everything that came from a store or a sensor becomes a text node or an attribute, never markup.
  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  }
  function draw(tag, attributes, text) {
    const node = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  }
  const percent = (p) => p >= 0.995 ? (p >= 0.9995 ? "100 %" : ">99 %") : p < 0.005 ? "<1 %" : `${Math.round(100 * p)} %`;
  const signed = (n) => n < 0 ? `\u2212${-n}` : `+${n}`;
  const grouped = (digits) => digits.replace(/\B(?=(\d{3})+$)/g, "\u202f");
  const count = (n) => grouped(String(n));
  const plural = (n, singular, plural) => `${count(n)} ${n === 1 ? singular : plural || singular + "s"}`;
  /* Money of a currency with `places` decimals, from minor units; `bare` leaves out the currency's name. */
  const money = (currency, places) => (minor, bare) => {
    const digits = String(Math.abs(minor)).padStart(places + 1, "0");
    const text = (minor < 0 ? "\u2212" : "") + grouped(digits.slice(0, digits.length - places)) + (places ? "." + digits.slice(-places) : "");
    return bare ? text : `${text} ${currency}`;
  };
  /* Formats of a time zone; those of UTC where the browser does not know the zone. */
  const zoned = (timeZone) => (options) => {
    try { return new Intl.DateTimeFormat("en-GB", { ...options, timeZone }); }
    catch { return new Intl.DateTimeFormat("en-GB", { ...options, timeZone: "UTC" }); }
  };
  /* Whoever made a scan that is bound to no person may be among those who came in without a credential; `rows` name them. */
  const UNIDENTIFIED_SHOWN = 8;
  function unidentified(rows) {
    const left = rows.length - UNIDENTIFIED_SHOWN;
    return make("div", { class: "unidentified" }, make("p", {}, "May be one of those who came in without a credential:"),
      make("ul", {}, ...rows.slice(0, UNIDENTIFIED_SHOWN).map((row) => make("li", {}, ...row))),
      left > 0 ? make("p", { class: "soft" }, `and ${count(left)} more`) : null);
  }
  return { make, draw, percent, signed, count, plural, money, zoned, unidentified };
})();
