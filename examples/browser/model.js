// The one file of `sar-bundle onnx`: what its metadata says, what it computes, and how a class is added by photos.

import { readTensors, unit } from "./tensors.js";

const MODEL_PROPERTIES = 14; // the field of onnx.ModelProto with the metadata
const text = new TextDecoder();

/** The metadata of an ONNX file, as text by key; onnxruntime-web does not give it. */
export function metadata(bytes) {
  const found = {};
  for (const [field, value] of fields(bytes)) {
    if (field !== MODEL_PROPERTIES) continue;
    const pair = new Map(fields(value));
    found[text.decode(pair.get(1))] = text.decode(pair.get(2) ?? new Uint8Array());
  }
  return found;
}

/** The fields of a protobuf message that have a length, as [number, bytes]. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    for (let value = 0, scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    if (tag % 8 === 0) varint();
    else if (tag % 8 === 1) at += 8;
    else if (tag % 8 === 5) at += 4;
    else {
      const length = varint();
      yield [Math.floor(tag / 8), bytes.subarray(at, at += length)];
    }
  }
}

const decoded = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer;

/** Open a file; `ort` is onnxruntime-web or onnxruntime-node. */
export async function openModel(ort, bytes) {
  const stored = metadata(bytes);
  const parsed = (key) => JSON.parse(stored[key]);
  return {
    ort,
    session: await ort.InferenceSession.create(bytes),
    names: parsed("class_names"),
    background: new Set(parsed("background")),
    thresholds: new Map(Object.entries(parsed("thresholds"))),
    limits: parsed("unknown_thresholds"),
    fill: parsed("fill"),
    teaching: parsed("teaching"),
    stored,
    classModel: readTensors(decoded(stored.class_model)),
    bank: decoded(stored.bank),
  };
}

/** Embedding, logits of the classes and of *unknown* (the last), for RGB pixels. */
export async function look(model, { data, width, height }) {
  const image = new model.ort.Tensor("uint8", data, [height, width, 3]);
  const { embedding, logits } = await model.session.run({ image }, ["embedding", "logits"]);
  return { embedding: embedding.data, logits: logits.data };
}

/**
 * Weights, bias of classes that are known by photos only, and those of *unknown*: the closed form in docs/class_model.md.
 * Those of *unknown* are null where the file has them.
 */
export function taughtWeights(model, taught) {
  const tensor = (name) => model.classModel.get(name).data;
  const number = (name) => tensor(name)[0];
  const { around, texts } = model.teaching;
  const size = tensor("centre").length;
  const [w0, w1, w2, w3] = tensor("weights");
  const [prior, scale, move, precision] = [number("prior"), number("scale"), tensor("translation"), tensor("precision")];
  const means = taught.map(({ total, digests }) => Float64Array.from(total, (value) => value / digests.length));
  let centre = tensor("centre");
  if (around !== null) centre = mean(means).map((value) => value * (means.length === 1 ? around : 1));
  let middle = tensor("text_centre");
  if (texts > 0) {
    const rows = taught.map(({ total }) => unit(total));
    middle = Float64Array.from(middle, (value, place) => (texts * value + sum(rows, place)) / (texts + rows.length));
  }
  const shared = w1 * size / prior / 2; // of the bias, what every name has
  const made = taught.map(({ digests }, which) => {
    const photos = digests.length;
    const apart = means[which].map((value, place) => photos * (value - centre[place]) / (photos + prior));
    const image = Float64Array.from({ length: size }, (_, row) => w0 * dot(precision.subarray(row * size, (row + 1) * size), apart));
    const weights = image.map((value, place) => value + w2 * scale * middle[place]);
    const bias = w1 * size / (photos + prior) / 2 - dot(image, apart) / 2 - dot(image, centre) - shared + dot(weights, move);
    return { weights, bias };
  });
  if (around === null) return [...made, null];
  const weights = Float64Array.from(middle, (value) => w2 * scale * value);
  return [...made, { weights, bias: w1 * size / number("broad") / 2 + w3 - shared + dot(weights, move) }];
}

/** Logits of the file's classes, of taught ones, and of *unknown*, once there are taught ones. */
export function taughtLogits(model, { embedding, logits }, weights) {
  const factor = weights.length > 0 ? model.teaching.factor : 1;
  const own = Array.from(weights.length > 0 ? logits.slice(0, -1) : logits, (value) => value * factor);
  return [...own, ...weights.map((one) => one === null ? logits.at(-1) * factor : dot(one.weights, embedding) + one.bias)];
}

/** The probability of *unknown* above which an image of a taught class, known by some photos, is called unknown. */
export function taughtLimit(model, photos) {
  const [knots, limits] = [0, 1].map((place) => [...model.classModel.get("unknown").data].filter((_, at) => at % 2 === place));
  if (knots.length === 0) return null;
  const at = knots.findIndex((knot) => knot >= photos);
  if (at <= 0) return limits.at(at);
  const [low, high] = [Math.log2(1 + knots[at - 1]), Math.log2(1 + knots[at])];
  return limits[at - 1] + (limits[at] - limits[at - 1]) * (Math.log2(1 + photos) - low) / (high - low);
}

/** Softmax of all but the last, and the probability of *unknown*. */
export function probabilities(logits) {
  const classes = logits.slice(0, -1);
  const top = Math.max(...classes);
  const powers = classes.map((value) => Math.exp(value - top));
  const total = powers.reduce((one, two) => one + two, 0);
  return { scores: powers.map((value) => value / total), unknown: 1 / (1 + Math.exp(top + Math.log(total) - logits.at(-1))) };
}

const sum = (rows, place) => rows.reduce((total, row) => total + row[place], 0);
const mean = (rows) => Float64Array.from(rows[0], (_, place) => sum(rows, place) / rows.length);

function dot(one, two) {
  let total = 0;
  for (let place = 0; place < one.length; place += 1) total += one[place] * two[place];
  return total;
}
