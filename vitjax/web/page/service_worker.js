// Keeps the files of the page, so that it opens without a connection, and adds
// the headers with which browsers allow threads.
//
// A file is kept under its checksum: it is loaded again only if it has changed.

importScripts("files.js"); // FILES: path -> [bytes, checksum]

const SCOPE = self.registration.scope;
const CACHE = `vitjax ${SCOPE}`;
const SMALL = 1 << 20; // bytes; larger files are kept when they are used
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

const keyOf = (path) => `${SCOPE}${path}?${FILES[path][1]}`;

self.addEventListener("install", (event) => {
  const small = Object.keys(FILES).filter((path) => FILES[path][0] < SMALL);
  self.skipWaiting();
  event.waitUntil(Promise.all(small.map((path) => load(path, SCOPE + path))));
});

self.addEventListener("activate", (event) => event.waitUntil(tidy()));

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  url.search = url.hash = "";
  if (event.request.method !== "GET" || !url.href.startsWith(SCOPE)) return;
  const path = url.href.slice(SCOPE.length) || "index.html";
  if (path in FILES) event.respondWith(answer(event, path));
});

async function answer(event, path) {
  const kept = await (await caches.open(CACHE)).match(keyOf(path));
  const response = kept ?? (await load(path, event.request.url, event));
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  const {status, statusText} = response;
  return new Response(response.body, {status, statusText, headers});
}

// Loads and keeps a file; with an event, the answer does not wait for the disk.
async function load(path, url, event) {
  const cache = await caches.open(CACHE);
  const response = await fetch(url, {cache: "no-cache"});
  if (!response.ok) {
    if (event) return response;
    throw new Error(`${path}: status ${response.status}`);
  }
  const kept = cache.put(keyOf(path), response.clone());
  if (event) event.waitUntil(kept.catch(() => {})); // maybe the disk is full
  else await kept;
  return response;
}

// Removes the files that the page no longer has.
async function tidy() {
  const cache = await caches.open(CACHE);
  const current = new Set(Object.keys(FILES).map(keyOf));
  for (const request of await cache.keys()) {
    if (!current.has(request.url)) await cache.delete(request);
  }
  await self.clients.claim();
}
