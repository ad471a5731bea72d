// Errors as sentences, wherever they come from.

const OF_THE_FILE = ["unsupported-format", "undecodable-image", "image-too-large"];

/** An error whose message is a sentence for people. */
export class Failure extends Error {
  constructor(message, status = 0, code = "") {
    super(message);
    this.status = status;
    this.code = code;
  }

  /** Whether the photo itself is why, so that asking again cannot help. */
  get final() {
    return OF_THE_FILE.includes(this.code);
  }
}

/** Begins with a capital and ends with a stop. */
export function sentence(text) {
  const trimmed = text.trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?…]$/.test(trimmed) ? "" : ".");
}
