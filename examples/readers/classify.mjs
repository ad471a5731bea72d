// Classify images by one ONNX file of `sar-bundle onnx`, in Node: a line of JSON for each image.
//
//   npm install onnxruntime-node
//   node examples/readers/classify.mjs shop.onnx photo.ppm        (djpeg photo.jpg > photo.ppm)

import { readFileSync } from "node:fs";
import { metadata } from "../browser/model.js";

const ort = await import(process.env.ORT ?? "onnxruntime-node"); // or a path of onnxruntime-web
if (ort.env?.wasm) ort.env.wasm.numThreads = 1;
const [file, ...paths] = process.argv.slice(2);
const bytes = readFileSync(file);
const names = JSON.parse(metadata(bytes).class_names);
const session = await ort.InferenceSession.create(bytes);

/** The pixels of a binary PPM. */
function ppm(path) {
  const content = readFileSync(path);
  const header = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(content.subarray(0, 64).toString("latin1"));
  if (!header) throw new Error(`${path}: expected a binary PPM: djpeg photo.jpg > photo.ppm`);
  const [head, width, height] = header;
  return new ort.Tensor("uint8", new Uint8Array(content.subarray(head.length)), [Number(height), Number(width), 3]);
}

for (const path of paths) {
  const { scores, answer, unknown, embedding } = await session.run({ image: ppm(path) });
  const best = Number(answer.data[0]);
  const result = { image: path, answer: best < 0 ? null : names[best], unknown: unknown.data[0] };
  console.log(JSON.stringify({ ...result, scores: [...scores.data], embedding: [...embedding.data] }));
}
