// Answers what the page of `sar-serve` asks its server for, in the page itself: nothing leaves the browser.

import * as ort from "../ort/ort.wasm.min.mjs";
import { Failure, sentence } from "./failure.js";
import { look, openModel, probabilities, taughtLimit, taughtLogits, taughtWeights } from "./model.js";
import { sha256, withClasses } from "./tensors.js";

export { Failure, sentence };
export const apiKey = { get: () => null, set() {} };

const MEGAPIXELS = 50e6;
const MOST_ROWS = 64; // embeddings that a bank stores of a class
ort.env.wasm.numThreads = 1; // more need headers that a plain file server does not send
export const opened = Promise.all(["ort/ort-wasm-simd-threaded.wasm", "model.onnx"].map(unpacked)).then(([program, bytes]) => {
  ort.env.wasm.wasmBinary = program;
  return openModel(ort, new Uint8Array(bytes));
});
const past = []; // what was taught before each change
let taught = []; // classes { name, digests, rows, total }
let weights = [];
let turn = Promise.resolve();

const spelling = (name) => name.trim().split(/\s+/).join(" ").toLowerCase();
const json = (content, status = 200) => new Response(status === 204 ? null : JSON.stringify(content), { status, headers: { ETag: `"${past.length}"` } });

/** The content of a packed file beside the page. */
async function unpacked(name) {
  const answer = await fetch(`${name}.packed`);
  if (!answer.ok) throw new Failure(`${name}.packed is missing beside this page: run prepare.py again.`);
  return new Response(answer.body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

export async function request(path, options = {}) {
  try {
    return await answer(path, options);
  } catch (error) {
    throw error instanceof Failure ? error : new Failure(sentence(`The model cannot be used: ${error.message}`));
  }
}

async function answer(path, { method = "GET", body = null }) {
  const { pathname, searchParams } = new URL(path, "http://page");
  const model = await opened;
  const [, , kind, name] = pathname.split("/").map(decodeURIComponent);
  if (kind === "model") return json(describe(model));
  if (kind === "classify") return json(await classify(model, body, body instanceof FormData ? body : searchParams));
  if (kind === "bank") return json(method === "POST" ? rollBack(model, JSON.parse(body)) : { count: past.length });
  if (method === "PUT") {
    turn = turn.catch(() => {}).then(() => teach(model, name, body.getAll("image"))); // one at a time, on what was taught before
    return json(await turn);
  }
  if (method === "DELETE") return json(change(model, taught.filter((one) => spelling(one.name) !== spelling(name))), 204);
  return json(list(model, searchParams));
}

function describe({ names, limits, stored, classModel }) {
  return {
    backbone: stored.backbone, digest: stored.bundle, provider: "WebAssembly", classes: names.length + taught.length,
    unknown: (taught.length > 0 ? classModel.get("unknown").data.length > 0 : limits !== null), writes: true, embeds: false,
    limits: { body_bytes: Infinity, images: 64, pixels: MEGAPIXELS, side: 16384, characters: 256 },
  };
}

function list({ names }, options) {
  const all = [...names.map((name) => ({ name, origin: "fixed" })), ...taught.map(({ name, digests }) => ({ name, origin: "added", photos: digests.length }))];
  const [like, prefix] = [options.get("like") ?? "", options.get("prefix") ?? ""].map(spelling);
  const found = all.filter(({ name }) => spelling(name).includes(like) && spelling(name).startsWith(prefix));
  const offset = Number(options.get("offset") ?? 0);
  return { classes: found.slice(offset, offset + Number(options.get("limit") ?? 100)), count: found.length };
}

// ------------------------------------------------------------------------------------------------------- classifying

/** Upright RGB pixels, transparency on the grey of the model. */
export async function pixels(blob, fill) {
  const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" }).catch(() => {
    throw new Failure("This file is no image that this browser can read.", 422, "undecodable-image");
  });
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height).getContext("2d", { alpha: false, willReadFrequently: true });
  canvas.fillStyle = `rgb(${fill} ${fill} ${fill})`;
  canvas.fillRect(0, 0, width, height);
  canvas.drawImage(bitmap, 0, 0);
  bitmap.close();
  const source = canvas.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < data.length; from += 4) {
    data[to++] = source[from];
    data[to++] = source[from + 1];
    data[to++] = source[from + 2];
  }
  return { data, width, height };
}

async function classify(model, body, options) {
  const start = performance.now();
  const image = await pixels(body instanceof FormData ? body.get("image") : body, model.fill);
  const decoded = performance.now();
  const seen = await look(model, image);
  const ended = performance.now();
  const names = [...model.names, ...taught.map(({ name }) => name)];
  const logits = taughtLogits(model, seen, weights);
  const given = new Set(options.getAll("classes").map(spelling));
  const without = options.getAll("classes").filter((name) => !names.some((other) => spelling(other) === spelling(name)));
  if (options.get("mode") === "only") names.forEach((name, place) => { if (!given.has(spelling(name))) logits[place] = -Infinity; });
  const chosen = names.map((_, place) => place).filter((place) => logits[place] > -Infinity);
  if (chosen.length === 0) throw new Failure("None of these names has photos yet.", 422, "no-classes");
  const { scores, unknown } = probabilities(logits);
  const order = chosen.sort((one, two) => logits[two] - logits[one] || one - two);
  const best = order.filter((place) => !model.background.has(names[place]));
  const other = order.find((place) => model.background.has(names[place]));
  const predictions = best.slice(0, Number(options.get("top_k"))).map((place, rank) => (
    { rank: rank + 1, label: names[place], score: scores[place], logit: logits[place], source: place < model.names.length ? "bank" : "extended" }));
  const least = model.thresholds.get(predictions[0].label);
  const reason = scores[other] > predictions[0].score ? `background ${names[other]} scores ${scores[other].toFixed(3)}, more than any class`
    : predictions[0].score < least ? `score ${predictions[0].score.toFixed(3)} is below ${least.toFixed(3)}, the threshold of this class` : null;
  const limit = predictions[0].source === "bank" && model.limits !== null ? model.limits[best[0]]
    : taughtLimit(model, taught[best[0] - model.names.length]?.digests.length ?? 0);
  const second = best.length > 1 ? { margin: scores[best[0]] - scores[best[1]], runner_up: names[best[1]] } : { margin: null, runner_up: null };
  return {
    results: [{ image: "image[0]", predictions, error: null, unknown, unknown_threshold: limit, reason, explanation: { ...second, nearest: [] } }],
    classes: chosen.length, without, timings_ms: { decode: decoded - start, infer: ended - decoded },
  };
}

// ---------------------------------------------------------------------------------------------------------- teaching

function change(model, classes) {
  past.push(taught);
  set(model, classes);
}

function set(model, classes) {
  taught = classes;
  weights = classes.length > 0 ? taughtWeights(model, classes) : [];
  document.dispatchEvent(new CustomEvent("taught", { detail: classes.length }));
}

function rollBack(model, { steps }) {
  set(model, past.splice(past.length - steps)[0]);
  return { count: past.length };
}

async function teach(model, name, blobs) {
  if (!("factor" in model.teaching)) throw new Failure("No class model was fitted to the photos of this file: run sar-bank fit, then sar-bundle onnx again.");
  if (model.names.some((other) => spelling(other) === spelling(name))) throw new Failure(`“${name}” comes with the file; only new classes are taught here.`, 409);
  const before = taught.find((one) => spelling(one.name) === spelling(name)) ?? { name, digests: [], rows: [], total: null };
  const made = { ...before, digests: [...before.digests], rows: [...before.rows], total: before.total?.slice() ?? null };
  for (const blob of blobs) {
    const image = await pixels(blob, model.fill);
    const digest = await sha256(`${image.width} x ${image.height}`, image.data);
    if (made.digests.some((other) => other.every((byte, place) => byte === digest[place]))) continue;
    const { embedding } = await look(model, image);
    made.total ??= new Float64Array(embedding.length);
    embedding.forEach((value, place) => { made.total[place] += value; });
    made.digests.push(digest);
    made.rows.push(Float32Array.from(embedding));
  }
  change(model, before.total ? taught.map((one) => (one === before ? made : one)) : [...taught, made]);
  const fresh = made.digests.length - before.digests.length;
  return { name: made.name, photos: made.digests.length, known: blobs.length - fresh, findings: [] };
}

/** The bank of the file with what was taught, as `sar-bank` reads it. */
export async function bankFile() {
  return withClasses((await opened).bank, taught.map((one) => ({ ...one, rows: one.rows.slice(-MOST_ROWS) })));
}
