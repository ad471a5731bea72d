// The answer for one photo: its classes as bars, the verdict, the reasons, and how long it took.

import { takesPhotos } from "./bank.js";
import { $, element, number, percent, place, show, spelling } from "./dom.js";

const MOST_NAMES = 6; // in a sentence
const MOST_LOWER = 10; // bars below the ranking

/** Draw a photo's answer; `current` says that it answers what is asked now. */
export function drawRanking(photo, state, current) {
  const answer = photo?.answer ?? null;
  const { labels, predictions = [] } = answer?.results[0] ?? {};
  const listed = labels?.map((one) => predictions.find(({ label }) => label === one.label) ?? one) ?? predictions;
  const all = listed.map((prediction, position) => ({ rank: position + 1, ...prediction }));
  const top = labels ? all : all.slice(0, state.topK);
  const own = new Set(state.names.map(spelling));
  const lower = all.slice(top.length).filter((prediction) => own.has(spelling(prediction.label))).slice(0, MOST_LOWER);
  drawBars($("bars"), top);
  drawBars($("lower-bars"), lower);
  const shown = new Set([...top, ...lower].map((prediction) => spelling(prediction.label)));
  const unseen = answer === null || !current ? [] : state.names.filter((name) => !shown.has(spelling(name)) && !answer.without?.includes(name));
  show("beyond", unseen.length === 0 ? "" : `Lower still: ${brief(unseen)}`);
  $("lower").hidden = lower.length === 0 && unseen.length === 0;
  $("legend").hidden = ![...top, ...lower].some((prediction) => prediction.source === "extended");
  $("locked").hidden = photo?.error?.status !== 401;
  $("empty").hidden = photo !== null;
  $("among").textContent = answer === null ? "" : `of ${number.format(answer.classes)} ${answer.classes === 1 ? "class" : "classes"}`;
  $("took").textContent = answer === null ? "" : `${Math.round(photo.elapsed)} ms`;
  $("ranking").setAttribute("aria-busy", String(photo !== null && !current));
  const reason = unknown(photo, state.unknown, state.model);
  show("verdict", reason === "" ? "" : "Unknown");
  show("reason", reason);
  $("ranking").classList.toggle("unsure", reason !== "");
  show("why", why(answer));
  if (answer) $("why").prepend(element("strong", "", "Why? "));
  drawFooter(photo, state.model);
}

/** Outline, on the preview, the crops where a photo shows classes; several names may share one. */
export function drawBoxes(photo) {
  const preview = $("preview");
  const names = new Map();
  for (const { label, box } of photo?.answer?.results[0].labels ?? []) names.set(String(box), [...(names.get(String(box)) ?? []), label]);
  const scale = Math.min(preview.clientWidth / preview.naturalWidth, preview.clientHeight / preview.naturalHeight);
  const [width, height] = [preview.naturalWidth * scale, preview.naturalHeight * scale];
  $("boxes").hidden = !(scale > 0) || preview.hidden;
  if ($("boxes").hidden) return;
  Object.assign($("boxes").style, { width: `${width}px`, height: `${height}px` });
  $("boxes").replaceChildren(...[...names].map(([box, labels]) => {
    const [left, top, right, bottom] = box.split(",").map((share) => 100 * share);
    const made = element("span");
    made.append(element("b", "", labels.join(", ")));
    Object.assign(made.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
    return made;
  }));
}

/** Why a photo shows none of the classes; "" where it may. `least` is a share, "server" or "". */
export function unknown(photo, least, model) {
  const result = photo?.answer?.results[0];
  if (!result) return "";
  if (result.labels) return result.labels.length > 0 ? "" : "Neither the photo nor a quarter of it shows a class with more than 50%.";
  if (result.reason) return `None of these is likely enough: ${result.reason}.`;
  if (least === "server") return result.unknown > (result.unknown_threshold ?? 1) ? `It shows none of the classes with a probability of ${percent.format(result.unknown)}.` : "";
  const share = Number(least) || 0;
  const best = result.predictions[0].score;
  return best < share ? `None of these is likely enough: the best has ${percent.format(best)}, less than ${percent.format(share)}.` : "";
}

function why(answer) {
  const result = answer?.results[0];
  const given = result?.explanation;
  if (!given) return "";
  const [{ label }] = result.predictions;
  const parts = [];
  if (given.margin !== null) parts.push(`${label} is ${(100 * given.margin).toFixed(1)} points ahead of ${given.runner_up}.`);
  if (given.nearest.length > 0) parts.push(`Nearest classes to ${label}, whatever the photo (cosine; 1 is the same): ${given.nearest.map(([name, cosine]) => `${name} (${cosine.toFixed(2)})`).join(", ")}.`);
  return parts.join(" ");
}

function brief(names) {
  const rest = names.length - MOST_NAMES;
  return names.slice(0, MOST_NAMES).join(", ") + (rest > 0 ? ` and ${number.format(rest)} more` : "");
}

/** Rows stay in place and change, so that their bars move from the old share to the new one. */
function drawBars(list, predictions) {
  while (list.children.length > predictions.length) list.lastChild.remove();
  for (const [position, prediction] of predictions.entries()) {
    const row = list.children[position] ?? list.appendChild(emptyRow());
    const [label, share, bar] = row.children;
    const extended = prediction.source === "extended";
    row.classList.toggle("own", extended);
    label.replaceChildren();
    if (list.id === "lower-bars") label.append(element("span", "rank", `${number.format(prediction.rank)}.`));
    if (extended) label.append(Object.assign(element("span", "mark", "+"), { ariaHidden: "true" }));
    label.append(element("span", "name", prediction.label));
    if (extended) label.append(element("span", "hidden", " (your name)"));
    row.dataset.label = prediction.label;
    share.textContent = prediction.score < 0.0005 ? "< 0.1%" : percent.format(prediction.score);
    bar.firstChild.style.width = `${100 * prediction.score}%`;
  }
}

function emptyRow() {
  const row = element("li");
  const bar = element("span", "bar");
  bar.ariaHidden = "true";
  bar.append(element("span", "fill"));
  row.append(element("span", "label"), element("span", "share"), bar);
  bar.getBoundingClientRect();
  return takesPhotos(row, () => row.dataset.label);
}

function drawFooter(photo, model) {
  const times = photo?.answer?.timings_ms;
  const sum = times && Object.values(times).reduce((total, value) => total + value, 0);
  const phases = times && Object.entries(times).map(([phase, value]) => `${phase} ${value.toFixed(1)}`).join(", ");
  $("timing").textContent = times ? `${Math.round(photo.elapsed)} ms, of which the ${place} ${sum.toFixed(1)} ms (${phases})` : "";
  const provider = photo?.answer?.provider ?? model?.provider ?? "";
  const digest = photo?.answer?.bundle ?? model?.digest ?? "";
  const parts = [model?.backbone, digest && `bundle ${digest.replace(/^sha256:/, "").slice(0, 8)}`, provider.replace("ExecutionProvider", "")];
  $("model").textContent = parts.filter(Boolean).join(" · ");
}
