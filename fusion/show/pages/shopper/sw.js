"use strict";
// Keeps the empty page, so that it opens without a connection. Nothing of a customer's is kept here.
const KEPT = "shell-1";
const FILES = ["/", "/assets/shopper.css", "/assets/shopper.js", "/assets/icon.svg", "/assets/manifest.webmanifest"];
self.addEventListener("install", (event) => event.waitUntil(caches.open(KEPT).then((cache) => cache.addAll(FILES)).then(() => self.skipWaiting())));
self.addEventListener("activate", (event) => event.waitUntil(caches.keys()
  .then((names) => Promise.all(names.filter((name) => name !== KEPT).map((name) => caches.delete(name)))).then(() => self.clients.claim())));
self.addEventListener("fetch", (event) => {
  const path = new URL(event.request.url).pathname;
  if (event.request.method !== "GET" || (!FILES.includes(path) && path !== "/in")) return;
  const key = path === "/in" ? "/" : path;
  event.respondWith(fetch(event.request).then((answer) => {
    if (answer.ok) { const copy = answer.clone(); event.waitUntil(caches.open(KEPT).then((cache) => cache.put(key, copy))); }
    return answer;
  }).catch(() => caches.match(key).then((kept) => kept || Response.error())));
});
