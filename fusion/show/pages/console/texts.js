// Texts in the language of the person who looks: /assets has no copy of them, the page holds all languages.
const all = JSON.parse(document.getElementById("texts").textContent);
let kept = null;
try { kept = localStorage.getItem("fusion-language"); } catch { /* a browser that keeps nothing */ }
export const language = all[kept] ? kept : document.documentElement.lang;
document.documentElement.lang = language;

/* The text of a key, with {name} replaced by values.name. */
export function t(key, values) {
  const text = all[language][key];
  if (text === undefined) return key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values && name in values ? String(values[name]) : whole);
}
/* The text of a key, or what a program wrote where there is none. */
export const known = (key, fallback) => all[language][key] === undefined ? fallback : t(key);
/* "1 visit", "2 visits": keys "one visit" and "many visit". */
export const n = (count, key) => t(count === 1 ? `one ${key}` : `many ${key}`, { n: Page.count(count) });

export function choose(wanted) {
  try { localStorage.setItem("fusion-language", wanted); } catch { /* for this page only */ }
  location.reload();
}
export function fillIn() {
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of document.querySelectorAll("[data-t-label]")) node.setAttribute("aria-label", t(node.dataset.tLabel));
  for (const node of document.querySelectorAll(".feed")) node.dataset.empty = t("nothing yet");
}
