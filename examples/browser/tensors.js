// Safetensors (https://github.com/huggingface/safetensors#format), and the bank file, which is one; docs/files.md describes it.

const TYPES = { F64: [8, Float64Array, "<f8"], I64: [8, BigInt64Array, "<i8"], F32: [4, Float32Array, "<f4"], F16: [2, Uint16Array, "<f2"], U8: [1, Uint8Array, "|u1"] };
const text = new TextDecoder();
const bytes = new TextEncoder();

/** Tensors by name, as { kind, shape, data }. */
export function readTensors(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const { __metadata__: _, ...header } = JSON.parse(text.decode(new Uint8Array(buffer, 8, length)));
  const tensors = new Map();
  for (const [name, { dtype, shape, data_offsets: [start, end] }] of Object.entries(header)) {
    tensors.set(name, { kind: dtype, shape, data: new TYPES[dtype][1](buffer.slice(8 + length + start, 8 + length + end)) });
  }
  return tensors;
}

function writeTensors(tensors, metadata) {
  const order = [...tensors.keys()].sort((one, two) => TYPES[tensors.get(two).kind][0] - TYPES[tensors.get(one).kind][0] || (one < two ? -1 : 1));
  const header = { __metadata__: metadata };
  let end = 0;
  for (const name of order) {
    const { kind, shape, data } = tensors.get(name);
    header[name] = { dtype: kind, shape, data_offsets: [end, end + data.byteLength] };
    end += data.byteLength;
  }
  let head = bytes.encode(JSON.stringify(header));
  head = bytes.encode(text.decode(head) + " ".repeat((8 - (head.length % 8)) % 8));
  const length = new DataView(new ArrayBuffer(8));
  length.setBigUint64(0, BigInt(head.length), true);
  return new Blob([length.buffer, head, ...order.map((name) => tensors.get(name).data)]);
}

export async function sha256(...parts) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", await new Blob(parts).arrayBuffer()));
}

const hex = (digest) => [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");

async function checksum(tensors, version) {
  const parts = [version];
  for (const name of [...tensors.keys()].sort()) {
    const { kind, shape, data } = tensors.get(name);
    parts.push(`["${name}", "${TYPES[kind][2]}", [${shape.join(", ")}]]`, data);
  }
  return hex(await sha256(...parts));
}

function appended(tensor, rows, before = false) {
  const width = tensor.shape[1];
  const data = new tensor.data.constructor(tensor.data.length + rows.length * width);
  data.set(tensor.data, before ? rows.length * width : 0);
  rows.forEach((row, place) => data.set(row, (before ? 0 : tensor.data.length) + place * width));
  return { ...tensor, shape: [tensor.shape[0] + rows.length, width], data };
}

/** A bank file with one more step: classes known by their photos only, each { name, digests, rows, total }. */
export async function withClasses(buffer, classes) {
  const tensors = readTensors(buffer);
  const content = JSON.parse(text.decode(tensors.get("json").data));
  const photos = classes.flatMap(({ rows, digests }) => rows.map((row, place) => ({ row, digest: digests[place] })));
  for (const item of content.folded) { // photos with embeddings come first, so the others move up
    if (item[3]?.photos) item[3].photos = item[3].photos.map(([start, stop]) => [start + photos.length, stop + photos.length]);
  }
  const [entries, sums] = [tensors.get("embeddings").shape[0], tensors.get("photo sums").shape[0]];
  const at = new Date().toISOString().replace(/\.\d+Z$/, "+00:00");
  let first = 0;
  const puts = classes.map(({ name, digests }, place) => {
    const range = [first, first += digests.length];
    const key = String(content.next_key++);
    return [key, name, entries + place, { photos_only: true, added: at, photos: [range], sum: sums + place }];
  });
  const summary = `added ${classes.map(({ name, digests }) => `'${name}' by ${digests.length} photos`).join(", ")}`.slice(0, 500);
  content.steps.push({ n: (content.steps.at(-1)?.n ?? content.begun) + 1, at, action: "add", summary, by: "browser", puts });
  tensors.set("embeddings", appended(tensors.get("embeddings"), classes.map(({ total }) => unit(total))));
  tensors.set("photos", appended(tensors.get("photos"), photos.map(({ row }) => row)));
  tensors.set("photo digests", appended(tensors.get("photo digests"), photos.map(({ digest }) => digest), true));
  tensors.set("photo sums", appended(tensors.get("photo sums"), classes.map(({ total }) => total)));
  const json = bytes.encode(JSON.stringify(content));
  tensors.set("json", { kind: "U8", shape: [json.length], data: json });
  return writeTensors(tensors, { format: "sar-bank", version: "1", digest: await checksum(tensors, "1") });
}

export function unit(row) {
  const length = Math.hypot(...row);
  return Float32Array.from(row, (value) => value / length);
}
