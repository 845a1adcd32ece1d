// What all parts of the page share: requests, the store's names, numbers and times, and how visits are called.
import { language, t } from "./texts.js";

const { make } = Page;
export const $ = (id) => document.getElementById(id);
const csrf = document.querySelector("meta[name=csrf]").content;
export const user = document.querySelector("meta[name=user]").content;
export const leave = () => { location.href = "/sign-in"; };

export async function ask(path, options) {
  const answer = await fetch(path, { credentials: "same-origin", ...options });
  if (answer.status === 401) { leave(); throw new Error("signed out"); }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.error || `status ${answer.status}`);
  return content;
}
export const post = (path, body) => ask(path, { method: "POST", headers: { "content-type": "application/json", "x-csrf-token": csrf }, body: JSON.stringify(body || {}) });
export const visitPath = (visit, rest) => `api/reviews/${encodeURIComponent(visit)}${rest || ""}`;

export const store = await ask("api/store");
export const plates = new Map(Object.entries(store.plates));
export const product = (gtin) => store.products[gtin] ? store.products[gtin][0] : gtin;
export const picture = (gtin) => store.pictures && store.pictures.includes(gtin) ? make("img", { src: `pictures/${encodeURIComponent(gtin)}`, alt: "", class: "thumb" }) : null;
export const money = Page.money(store.currency, store.exponent);
const format = (options) => {
  const where = { en: "en-GB", de: "de-DE" }[language] || "en-GB";
  try { return new Intl.DateTimeFormat(where, { ...options, timeZone: store.timezone }); }
  catch { return new Intl.DateTimeFormat(where, { ...options, timeZone: "UTC" }); }
};
const clockFormat = format({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const dayFormat = format({ weekday: "short", day: "numeric", month: "long" });
export const clock = (ms) => clockFormat.format(new Date(ms));
export const dayOf = (ms) => dayFormat.format(new Date(ms));
/* A clock time, with its day where that is another than the day of `now`. */
export const moment = (ms, now) => dayOf(ms) === dayOf(now || Date.now()) ? clock(ms) : `${dayOf(ms)}, ${clock(ms)}`;
export function age(ms) {
  const s = Math.max(0, Math.round((Date.now() + ahead() - ms) / 1000));
  return s < 90 ? `${s} s` : s < 5400 ? `${Math.round(s / 60)} min` : s < 172800 ? `${Math.round(s / 3600)} h` : t("days", { n: Math.round(s / 86400) });
}
/* By how much the server's clock is ahead of this machine's. */
let aheadMs = 0;
export const ahead = () => aheadMs;
export const setNow = (ms) => { aheadMs = ms - Date.now(); };

// Visits are numbered in the order of their arrival, on the plan as in every list, so that colour is never the only sign.
const numbers = new Map();
const numberOf = (visit) => { if (!numbers.has(visit)) numbers.set(visit, numbers.size + 1); return numbers.get(visit); };
/* "p-uhqw" of a pseudonym, "visit 12" of a visit without one: short enough to call across a shop. */
export function short(visit, account) {
  if (/^p-[a-z]{20}$/.test(account || "")) return account.slice(0, 6);
  if (account && account !== "no credential") return account.length > 24 ? `${account.slice(0, 23)}\u2026` : account;
  const number = /-(\d+)$/.exec(visit || "");
  return number ? t("visit number", { n: number[1] }) : visit ? (visit.length > 24 ? `${visit.slice(0, 23)}\u2026` : visit) : t("unidentified visitor");
}
export const look = (visit, account) => visit ? { label: short(visit, account), number: String(numberOf(visit)), colour: `c${(numberOf(visit) - 1) % 8}` } : { label: short("", account), number: "?", colour: "cnone" };
export const badge = (person) => make("span", { class: `badge ${person.colour}${person.number === "?" ? " unknown" : ""}`, "aria-hidden": "true" }, person.number);

export const option = (value, text) => make("option", { value }, text);
export const byName = () => Object.entries(store.products).sort((a, b) => a[1][0].localeCompare(b[1][0]));
export const listed = (id, row, n) => { const list = $(id); list.prepend(row); while (list.children.length > n) list.lastChild.remove(); };
export function trouble(text) { $("trouble").textContent = text; $("trouble").hidden = !text; }
/* Marks what stands in these places as old: greyed, with the time of the last data; null: they are current. */
export function aged(labelId, greyed, asOf) {
  const label = $(labelId);
  label.hidden = asOf === null;
  label.textContent = asOf === null ? "" : asOf ? t("as of", { time: moment(asOf) }) : t("no data yet");
  for (const id of greyed) $(id).classList.toggle("old", asOf !== null);
}
