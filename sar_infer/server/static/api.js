// Talking to the server: the key, one more try when it is busy, and its errors as sentences.

import { Failure, sentence } from "./failure.js";

export { Failure, sentence };

const KEY = "sar-clip-key";
const LONGEST_WAIT_S = 20;

/** The key lives in this tab only; where the browser forbids storage, in this page only. */
let remembered = null;
export const apiKey = {
  get() {
    try { return remembered ?? sessionStorage.getItem(KEY); } catch { return remembered; }
  },
  set(value) {
    remembered = value;
    try {
      if (value === null) sessionStorage.removeItem(KEY); else sessionStorage.setItem(KEY, value);
    } catch { /* kept in memory */ }
  },
};

/** Whether the server has said, in its page, that it asks for a key, and none was given yet. */
const locked = () => "key" in document.documentElement.dataset && apiKey.get() === null;

/** A fetch that returns good answers only. `onWait(seconds)` is called before a busy server is asked once more. */
export async function request(path, { onWait, headers = {}, ...options } = {}) {
  if (locked()) throw new Failure("This server asks for its key.", 401);
  for (let attempt = 1; ; attempt += 1) {
    const answer = await send(path, { ...options, headers });
    if (answer.ok) return answer;
    const wait = Number.parseFloat(answer.headers.get("Retry-After") ?? "");
    if (answer.status !== 429 || attempt > 1 || !(wait <= LONGEST_WAIT_S)) throw await failure(answer);
    onWait?.(wait);
    await pause(wait * 1000, options.signal);
  }
}

async function send(path, options) {
  const key = apiKey.get();
  const headers = key === null ? options.headers : { ...options.headers, Authorization: `Bearer ${key}` };
  try {
    return await fetch(path, { ...options, headers });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Failure("The server cannot be reached. Check that it is running and that you are connected.");
  }
}

async function failure(answer) {
  const problem = await answer.json().catch(() => ({}));
  const title = [415, 422].includes(answer.status) && problem.detail ? "" : problem.title; // there the detail says it all
  const parts = [title, problem.detail].filter((part) => typeof part === "string" && part.trim() !== "");
  if (parts.length === 2 && parts[1].toLowerCase().startsWith(parts[0].toLowerCase())) parts.shift();
  if (parts.length === 0) parts.push(`The server answered with status ${answer.status}`);
  return new Failure(parts.map(sentence).join(" "), answer.status, problem.code);
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });
}
