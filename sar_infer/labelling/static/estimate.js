// How good the classifier is: the estimate with its interval over answers, what is confused, and whether it is enough.
import { html, useState } from "./preact.js";
import { Tile } from "./parts.js";

const WIDTH = 320;
const HEIGHT = 130;
const EDGE = 30;

/** A share as text; an estimate never says 100 %. */
const percent = (share) => (share >= 0.995 ? "over 99 %" : `${Math.round(share * 100)} %`);

function Curve({ curve }) {
  const looks = curve.filter((one) => one.accuracy !== null);
  if (looks.length < 2) return null;
  const most = looks[looks.length - 1].answers;
  const x = (one) => EDGE + ((WIDTH - EDGE - 8) * one.answers) / most;
  const y = (share) => 8 + (HEIGHT - 28) * (1 - share);
  const line = (looked, share) => looked.map((one) => `${x(one).toFixed(1)},${y(share(one)).toFixed(1)}`).join(" ");
  const band = `${line(looks, (one) => one.high)} ${line([...looks].reverse(), (one) => one.low)}`;
  return html`<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="Accuracy with its interval over answers">
    ${[0, 0.5, 1].map((share) => html`<line class="axis" x1=${EDGE} x2=${WIDTH - 8} y1=${y(share)} y2=${y(share)} />
      <text x="0" y=${y(share) + 4}>${share * 100} %</text>`)}
    <polygon class="band" points=${band} /><polyline class="curve" points=${line(looks, (one) => one.accuracy)} />
    <text x=${WIDTH - 8} y=${HEIGHT - 4} text-anchor="end">${most} answers</text></svg>`;
}

function Confused({ pair }) {
  const [open, setOpen] = useState(false);
  return html`<li><button type="button" class="quiet" aria-expanded=${open} onClick=${() => setOpen(!open)}>
      ${pair.class} predicted as ${pair.predicted}: ${pair.photos.length}</button>
    ${open && html`<ul class="grid">${pair.photos.map((photo) => html`<li key=${photo.number}><${Tile} photo=${photo} /></li>`)}</ul>`}</li>`;
}

export function Enough({ state: { estimate, curve, confused } }) {
  const { accuracy, low, high, held_out: heldOut, here, enough, why } = estimate;
  return html`<section class="sheet" aria-label="Accuracy">
    <h2>${enough ? "Enough" : "Accuracy on new photos"}</h2>
    ${accuracy !== null && html`<p class="figure">${percent(accuracy)}</p>
      <p class="note">90 % interval: ${percent(low)} to ${percent(high)}, from ${heldOut} held-out photos.
        ${here !== null && ` On these photos: ${percent(here)}.`}</p>`}
    <p class="why">${why}.</p>
    <${Curve} curve=${curve} />
    ${confused.length > 0 && html`<h3>Confused most</h3><ul class="classes">${confused.map((pair) => html`<${Confused}
      key=${pair.class + pair.predicted} pair=${pair} />`)}</ul>`}
  </section>`;
}
