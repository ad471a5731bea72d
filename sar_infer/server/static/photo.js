// A photo on its way to the server: sent as it is, unless it is beyond the server's limits.

import { Failure } from "./api.js";
import { place } from "./dom.js";

const SIDE = 2048; // the model looks at far fewer pixels; this leaves room for odd shapes
const SMALL_SIDE = 512; // for many photos at once
const QUALITY = 0.92;

/** The body to send, and a note for the user where it is not the file itself. */
export async function prepare(file, limits) {
  const size = await measure(file);
  const reasons = [];
  if (file.size > limits.bytes) reasons.push(`${megabytes(file.size)}, and the ${place} takes ${megabytes(limits.bytes)}`);
  if (size && size.width * size.height > limits.pixels) {
    reasons.push(`${megapixels(size.width * size.height)}, and the ${place} takes ${megapixels(limits.pixels)}`);
  } else if (size && Math.max(size.width, size.height) > limits.side) {
    reasons.push(`${Math.max(size.width, size.height)} pixels long, and the ${place} takes ${limits.side}`);
  }
  if (reasons.length === 0) return { body: file, note: "" };
  const excess = reasons.join("; it has ");
  const small = size && (await shrink(file, size));
  if (!small) {
    if (file.size <= limits.bytes) return { body: file, note: "" }; // the server says what is wrong with it
    throw new Failure(`This file has ${excess}. Your browser cannot read it to make it smaller.`, 413, "image-too-large");
  }
  return { body: small.blob, note: `Scaled down to ${small.width} × ${small.height} before sending: this photo has ${excess}.` };
}

/** A photo in base64, no larger than the model needs; where the browser cannot read the file, the file itself. */
export async function small(file) {
  const size = await measure(file);
  const shrunk = size && Math.max(size.width, size.height) > SMALL_SIDE ? await shrink(file, size, SMALL_SIDE) : null;
  return base64(shrunk ? shrunk.blob : file);
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Failure("This file cannot be read."));
    reader.readAsDataURL(blob);
  });
}

/** Width and height after orientation, or null where the browser cannot read the file. */
function measure(file) {
  return new Promise((resolve) => {
    const url = URL.createObjectURL(file);
    const image = new Image();
    const finish = (size) => { URL.revokeObjectURL(url); resolve(size); };
    image.onload = () => finish(image.naturalWidth ? { width: image.naturalWidth, height: image.naturalHeight } : null);
    image.onerror = () => finish(null);
    image.src = url;
  });
}

async function shrink(file, size, side = SIDE) {
  const scale = Math.min(1, side / Math.max(size.width, size.height));
  const width = Math.max(1, Math.round(size.width * scale));
  const height = Math.max(1, Math.round(size.height * scale));
  try {
    const options = { imageOrientation: "from-image", resizeWidth: width, resizeHeight: height, resizeQuality: "high" };
    const bitmap = await createImageBitmap(file, options);
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    canvas.getContext("2d").drawImage(bitmap, 0, 0, width, height);
    bitmap.close();
    const blob = await new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", QUALITY); });
    return blob && { blob, width, height };
  } catch {
    return null;
  }
}

const megabytes = (bytes) => `${round(bytes / 2 ** 20)} MiB`;
const megapixels = (pixels) => `${round(pixels / 1e6)} megapixels`;
const round = (value) => (value < 10 ? Math.round(value * 10) / 10 : Math.round(value));
