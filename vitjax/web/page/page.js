// The page: takes images and captions, and shows what the worker answers.

import {cropOf, drawAttention} from "./attention.js";
import {keepOffline} from "./offline.js";

const LEAST = 320; // longest side of the picture on the page, in pixels
const MOST = 1024;
const TYPING = 150; // milliseconds without a key until captions are compared
const SPEAKING = 1000; // and until the result is read out

const element = (id) => document.getElementById(id);
const worker = new Worker("worker.js", {type: "module"});
const waiting = new Map(); // number of a message -> {resolve, reject}
let site;
let embedding; // of the image, for a model that reads captions
let answer; // the last one about an image
let latest = 0; // number of the last image
let spoken;

worker.onmessage = ({data: {id, result, error, progress}}) => {
  if (progress) return showProgress(progress);
  const {resolve, reject} = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(result);
  else reject(new Error(error));
};
worker.onerror = (event) => {
  showError(new Error(event.message || "the worker could not be started"));
};

function ask(task, options = {}, transfer = []) {
  return new Promise((resolve, reject) => {
    const id = ask.count = (ask.count ?? 0) + 1;
    waiting.set(id, {resolve, reject});
    worker.postMessage({id, task, ...options}, transfer);
  });
}

async function start() {
  if (await keepOffline()) return; // the page is loading again
  element("state").textContent = "Loading the model";
  element("progress").hidden = false;
  const allowWebgpu = !new URLSearchParams(location.search).has("nowebgpu");
  const loaded = await ask("load", {allowWebgpu});
  site = {...loaded.site, passed: loaded.passed};
  document.title = site.title;
  element("title").textContent = site.title;
  element("about").textContent = about(loaded);
  element("loading").hidden = true;
  element("picture").hidden = element("answer").hidden = false;
  element("camera").hidden = !navigator.mediaDevices?.getUserMedia;
  element("note").textContent = "The answer to your image appears here.";
  if (site.kind === "texts") {
    element("answer-title").textContent = "Which caption fits?";
    element("note").textContent =
      "Write captions; scores follow as soon as there is an image.";
    element("captions").hidden = false;
    site.captions.forEach((caption) => addCaption(caption));
  } else if (site.kind === "classes") {
    const count = Math.min(site.top, site.labels.length);
    element("answer-title").textContent = `Top ${count} of ${site.labels.length}`;
  }
  if (!loaded.passed) {
    showError(new Error("Do not trust the answers: the self-test failed."));
  }
  document.body.dataset.ready = "";
}

function about({provider, threads, difference}) {
  const where = {webgpu: "the GPU (WebGPU)", wasm: "the CPU (WebAssembly)"};
  const count = threads === 1 ? "one thread" : `${threads} threads`;
  const facts = site.facts;
  const [height, width] = facts.image_size;
  return (
    `Runs on ${where[provider]}${provider === "wasm" ? `, ${count}` : ""}. ` +
    `Self-test: differs from the exported model by ` +
    `${difference.toExponential(1)} of the largest output. The model sees ` +
    `${width} × ${height} pixels, in ${facts.precision}. ` +
    `Made with vitjax ${facts.vitjax}.`
  );
}

function showProgress({done, total}) {
  element("progress").value = total ? done / total : 0;
  element("progress").setAttribute("aria-valuetext", megabytes(done, total));
  element("state").textContent =
    done < total
      ? `Loading the model: ${megabytes(done, total)}`
      : "Starting the model";
}

function megabytes(done, total) {
  return `${(done / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`;
}

function showError(error) {
  element("error").textContent = error.message;
  element("progress").hidden = true;
}

// Runs a handler, and shows what it throws.
function guarded(handler) {
  return async (...options) => {
    try {
      await handler(...options);
    } catch (error) {
      showError(error);
    }
  };
}

// An image from anywhere: decoded upright, shown, classified.
const take = guarded(async (source) => {
  if (site.passed) element("error").textContent = "";
  const number = ++latest;
  let bitmap = source;
  if (source instanceof Blob) {
    bitmap = await createImageBitmap(source, {
      imageOrientation: "from-image",
      colorSpaceConversion: "none", // as in Python
      premultiplyAlpha: "none",
    }).catch(() => {
      throw new Error(
        `${source.name ?? "This"} is not an image that this browser can read.`,
      );
    });
  }
  const {width, height} = bitmap;
  const shrunk = Math.min(1, Math.sqrt(site.maxPixels / (width * height)));
  const size = [width, height].map((x) => Math.max(1, Math.floor(x * shrunk)));
  const pixels = draw(new OffscreenCanvas(...size), bitmap).data;
  const longest = Math.max(width, height);
  const shown = Math.min(Math.max(longest, LEAST), MOST) / longest;
  const canvas = element("image");
  canvas.width = element("overlay").width = Math.ceil(width * shown);
  canvas.height = element("overlay").height = Math.ceil(height * shown);
  draw(canvas, bitmap, shown <= 1); // single pixels stay visible
  bitmap.close?.();
  element("frame").hidden = false;
  element("invitation").hidden = true;
  element("answer").setAttribute("aria-busy", "true");
  const found = await ask(
    "classify",
    {pixels, width: size[0], height: size[1]},
    [pixels.buffer],
  );
  if (number !== latest) return; // another image has come
  answer = {...found, size, width, height};
  element("answer").removeAttribute("aria-busy");
  showAttention();
  showTime(width, height, shrunk);
  if (site.kind === "texts") {
    embedding = found.output;
    await compare();
  } else {
    showOutputs(found.output);
  }
});

function draw(canvas, bitmap, isSmooth = true) {
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.imageSmoothingEnabled = isSmooth;
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function showTime(width, height, shrunk) {
  const note = shrunk < 1 ? `, scaled to ${answer.size.join(" × ")}` : "";
  element("time").textContent =
    `${Math.round(answer.milliseconds)} ms for an image of ` +
    `${width} × ${height} pixels${note}.`;
}

function showAttention() {
  const {attention} = answer;
  element("attention").hidden = !attention;
  const overlay = element("overlay");
  overlay.hidden = !attention || !element("shows-attention").checked;
  if (overlay.hidden) return;
  const crop = cropOf(site.view, answer.width, answer.height);
  const scale = overlay.width / answer.width;
  drawAttention(overlay, attention, crop.map((x) => x * scale));
}

function showOutputs(output) {
  element("note").hidden = true;
  const isNumbers = site.kind === "numbers";
  const scores = isNumbers ? [...output] : probabilities(output);
  const order = scores.map((_, i) => i);
  if (!isNumbers) order.sort((i, j) => scores[j] - scores[i] || i - j);
  const best = isNumbers ? order : order.slice(0, site.top);
  const rows = best.map((i) => {
    const row = newRow(site.labels[i]);
    setScore(row, scores[i]);
    return row;
  });
  element("classes").replaceChildren(...rows);
  const parts = best.map((i) => `${site.labels[i]} ${format(scores[i])}`);
  speak(parts.slice(0, 3).join(", "));
}

function newRow(label) {
  const row = document.createElement("li");
  const line = document.createElement("div");
  line.className = "row";
  const name = document.createElement("span");
  if (label !== undefined) name.textContent = label;
  const score = document.createElement("span");
  score.className = "score";
  line.append(name, score);
  row.append(line);
  if (site.kind !== "numbers") {
    const bar = document.createElement("div");
    bar.className = "bar";
    bar.setAttribute("aria-hidden", "true");
    bar.append(document.createElement("div"));
    bar.firstChild.style.transform = "scaleX(0)";
    row.append(bar);
  }
  return row;
}

function setScore(row, score) {
  row.dataset.score = score;
  row.querySelector(".score").textContent = format(score);
  const bar = row.querySelector(".bar div");
  if (bar) bar.style.transform = `scaleX(${score})`;
}

function format(score) {
  if (site.kind === "numbers") return score.toPrecision(4);
  return `${(100 * score).toFixed(1)} %`;
}

function probabilities(logits) {
  if (site.sigmoid) return Array.from(logits, (x) => 1 / (1 + Math.exp(-x)));
  const largest = logits.reduce((x, y) => Math.max(x, y), -Infinity);
  const powers = Array.from(logits, (x) => Math.exp(x - largest));
  const sum = powers.reduce((x, y) => x + y, 0);
  return powers.map((x) => x / sum);
}

function addCaption(text) {
  const row = newRow();
  const [line] = row.children;
  const field = document.createElement("input");
  field.type = "text";
  field.value = text;
  field.ariaLabel = "Caption";
  field.autocomplete = "off";
  field.addEventListener("input", compareSoon);
  line.firstChild.replaceWith(field);
  const remove = document.createElement("button");
  remove.type = "button";
  remove.className = "remove";
  remove.textContent = "×";
  remove.ariaLabel = "Remove this caption";
  remove.addEventListener("click", () => {
    const next = row.nextElementSibling ?? row.previousElementSibling;
    row.remove();
    (next?.querySelector("input") ?? element("add")).focus();
    compareSoon();
  });
  line.append(remove);
  element("list").append(row);
  return field;
}

function compareSoon() {
  clearTimeout(compareSoon.timer);
  compareSoon.timer = setTimeout(guarded(compare), TYPING);
}

// Compares the image with all captions.
async function compare() {
  const rows = [...element("list").children].filter((row) => {
    const text = row.querySelector("input").value.trim();
    if (!text) row.querySelector(".score").textContent = "";
    if (!text) row.querySelector(".bar div").style.transform = "scaleX(0)";
    return text;
  });
  if (!embedding || !rows.length) return;
  const captions = rows.map((row) => row.querySelector("input").value.trim());
  const found = await ask("embed", {captions});
  const {temperature, bias} = site.facts;
  const logits = found.embeddings.map(
    (x) => temperature * x.reduce((sum, y, i) => sum + y * embedding[i], 0) + bias,
  );
  const scores = probabilities(logits);
  rows.forEach((row, i) => setScore(row, scores[i]));
  element("note").hidden = true;
  const best = scores.indexOf(Math.max(...scores));
  speak(`${captions[best]} ${format(scores[best])}`);
}

function speak(text) {
  clearTimeout(spoken);
  const wait = site.kind === "texts" ? SPEAKING : 0;
  spoken = setTimeout(() => (element("spoken").textContent = text), wait);
}

const openCamera = guarded(async () => {
  const video = element("video");
  video.srcObject = await navigator.mediaDevices
    .getUserMedia({video: {facingMode: "environment"}})
    .catch(() => {
      throw new Error("The camera cannot be used: allow it in the browser.");
    });
  element("viewfinder").showModal();
});

element("viewfinder").addEventListener("close", () => {
  for (const track of element("video").srcObject?.getTracks() ?? []) track.stop();
});
element("cancel").addEventListener("click", () => element("viewfinder").close());
element("shoot").addEventListener("click", async () => {
  const picture = await createImageBitmap(element("video"));
  element("viewfinder").close();
  take(picture);
});
element("camera").addEventListener("click", openCamera);
element("choose").addEventListener("click", () => element("file").click());
element("file").addEventListener("change", ({target}) => {
  if (target.files.length) take(target.files[0]);
  target.value = ""; // the same file can be chosen again
});
element("add").addEventListener("click", () => addCaption("").focus());
element("shows-attention").addEventListener("change", showAttention);

document.addEventListener("paste", ({clipboardData}) => {
  const file = [...clipboardData.files].find((x) => x.type.startsWith("image/"));
  if (site && file) take(file);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  element("drop").classList.add("over");
});
document.addEventListener("dragleave", ({relatedTarget}) => {
  if (!relatedTarget) element("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  element("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (site && file) take(file);
});

guarded(start)();
