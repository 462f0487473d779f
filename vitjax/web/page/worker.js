// Loads the model and runs it, beside the page so that it never waits.
//
// Messages in: {id, task, ...arguments}; out: {id, result} or {id, error}, and
// {progress: {done, total}} while files arrive.

const RUNTIME = new URL("./runtime/", import.meta.url).href;
// Largest difference of a GPU's answer, relative to the largest output.
const TOLERANCE = {float32: 1e-2, float16: 3e-2, int8: 0.5};
const MAX_THREADS = 8;

let ort;
let site;
let imageTower;
let textTower;
let tokenize;
const embeddings = new Map(); // caption -> its embedding

const TASKS = {load, classify, embed};

self.onmessage = async ({data: {id, task, ...options}}) => {
  try {
    self.postMessage({id, result: await TASKS[task](options)});
  } catch (error) {
    self.postMessage({id, error: error?.message ?? String(error)});
  }
};

// Loads everything; returns {site, provider, threads, difference, passed}.
async function load({allowWebgpu}) {
  site = await (await get("site.json")).json();
  const webgpu = allowWebgpu && (await hasWebgpu());
  const kind = webgpu ? ".asyncify" : "";
  const wasm = `runtime/ort-wasm-simd-threaded${kind}.wasm`;
  const vocabulary = site.tokenizer?.vocab;
  const pieces = [...site.image.pieces, ...(site.text?.pieces ?? [])];
  const names = [wasm, ...pieces.map(([name]) => name)];
  if (vocabulary) names.push(vocabulary);
  const total = names.reduce((sum, name) => sum + site.sizes[name], 0);
  let done = 0;
  const add = (bytes) => self.postMessage({progress: {done: (done += bytes), total}});

  ort = await import(`${RUNTIME}ort.${webgpu ? "webgpu" : "wasm"}.min.mjs`);
  ort.env.logLevel = "error";
  ort.env.wasm.wasmPaths = RUNTIME;
  ort.env.wasm.wasmBinary = await download([[wasm, site.sizes[wasm]]], add);
  const cores = navigator.hardwareConcurrency ?? 1;
  const threads = self.crossOriginIsolated ? Math.min(cores, MAX_THREADS) : 1;
  ort.env.wasm.numThreads = threads;

  const image = await download(site.image.pieces, add);
  const text = site.text && (await download(site.text.pieces, add));
  if (text) {
    const size = site.sizes[vocabulary];
    const words = await download([[vocabulary, size]], add);
    const {createTokenizer} = await import("./tokenizers.js");
    tokenize = await createTokenizer(site.tokenizer, words);
  }
  let provider = webgpu ? "webgpu" : "wasm";
  let difference = await open(image, text, provider).catch((error) => {
    if (!webgpu) throw error;
    return Infinity;
  });
  if (webgpu && !(difference <= TOLERANCE[site.facts.precision])) {
    provider = "wasm"; // this GPU fails, or does not say what the model says
    difference = await open(image, text, provider);
  }
  const passed = difference <= TOLERANCE[site.facts.precision];
  return {site, provider, threads, difference, passed};
}

// Opens the towers; returns how the answer to an image of known pixels differs
// from the one written by the export, relative to the largest output.
async function open(image, text, provider) {
  const options = {executionProviders: [provider]};
  imageTower = await ort.InferenceSession.create(image, options);
  textTower = text && (await ort.InferenceSession.create(text, options));
  const [height, width] = site.facts.image_size;
  const pixels = new Uint8Array(height * width * 3);
  for (let i = 0; i < pixels.length; i++) {
    const [x, y] = [Math.floor(i / 3) % width, Math.floor(i / 3 / width)];
    pixels[i] = (7 * x + 13 * y + 101 * (i % 3)) % 256;
  }
  const {output} = await runImage(pixels, width, height);
  const largest = Math.max(...site.image.expected.map(Math.abs));
  const differences = output.map((x, i) => Math.abs(x - site.image.expected[i]));
  return differences.reduce((x, y) => (x > y ? x : y), 0) / (largest || 1);
}

// The answer to pixels with four channels: {output, attention, milliseconds}.
async function classify({pixels, width, height}) {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4) {
    rgb[to++] = pixels[from];
    rgb[to++] = pixels[from + 1];
    rgb[to++] = pixels[from + 2];
  }
  const start = performance.now();
  const found = await runImage(rgb, width, height);
  return {...found, milliseconds: performance.now() - start};
}

async function runImage(pixels, width, height) {
  const image = new ort.Tensor("uint8", pixels, [1, height, width, 3]);
  const found = await imageTower.run({image});
  const output = found[imageTower.outputNames[0]].data;
  const map = found.attention;
  const attention = map && {values: map.data, size: map.dims.slice(1)};
  return {output, attention};
}

// The embeddings of captions; each is computed once.
async function embed({captions}) {
  const start = performance.now();
  const missing = captions.filter((caption) => !embeddings.has(caption));
  if (missing.length) {
    const ids = missing.map(tokenize);
    const shape = [missing.length, ids[0].length];
    const text = new ort.Tensor("int32", Int32Array.from(ids.flat()), shape);
    const found = (await textTower.run({text}))[textTower.outputNames[0]];
    const width = found.dims[1];
    missing.forEach((caption, i) => {
      embeddings.set(caption, found.data.slice(i * width, (i + 1) * width));
    });
  }
  return {
    embeddings: captions.map((caption) => embeddings.get(caption)),
    milliseconds: performance.now() - start,
  };
}

async function hasWebgpu() {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    return Boolean(adapter && !adapter.info?.isFallbackAdapter);
  } catch {
    return false;
  }
}

// The bytes of a file in pieces of known size, one after the other.
async function download(pieces, add) {
  const whole = new Uint8Array(pieces.reduce((sum, [, size]) => sum + size, 0));
  let place = 0;
  for (const [name, size] of pieces) {
    const end = place + size;
    const reader = (await get(name)).body.getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (place + part.value.length > end) throw new Error(changed(name));
      whole.set(part.value, place);
      place += part.value.length;
      add(part.value.length);
    }
    if (place !== end) throw new Error(changed(name));
  }
  return whole;
}

async function get(name) {
  const response = await fetch(new URL(name, import.meta.url)).catch(() => {
    throw new Error(`${name} could not be loaded: there is no connection.`);
  });
  if (response.ok) return response;
  throw new Error(`${name} could not be loaded: status ${response.status}.`);
}

function changed(name) {
  return `${name} has another size than expected. Reload the page.`;
}
