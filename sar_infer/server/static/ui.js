// The page to try the classifier. Text from users and from the server only ever becomes textContent.

import { apiKey, Failure, request, sentence } from "./api.js";
import { prepare } from "./photo.js";

const DEBOUNCE_MS = 200;
const LONGEST_QUERY = 4000; // more names than that travel in the body
const LONGEST_RANKING = 1000; // how far down one's own names are looked for
const MOST_PHOTOS = 60;
const MOST_NAMES = 6; // in a sentence
const BLANK = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";
const MOST_LOWER = 10; // bars below the ranking

const $ = (id) => document.getElementById(id);
const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const number = new Intl.NumberFormat("en");

const state = { photos: [], current: null, names: [], only: false, topK: 5, model: null, revision: 0 };
const limits = { bytes: 10 * 2 ** 20, pixels: 50e6, side: 16384 };
let running = new AbortController();
let timer = 0;

// ------------------------------------------------------------------------------------------------------- classifying

/** How many predictions to ask for: with names of one's own, enough to say where they stand. */
function wanted() {
  const classes = state.model?.classes ?? LONGEST_RANKING;
  return state.names.length === 0 ? state.topK : Math.max(state.topK, Math.min(LONGEST_RANKING, classes + state.names.length));
}

const question = () => JSON.stringify([state.names, state.only, wanted(), state.revision]);

/** Ask again a moment after the last change. What is still on its way is dropped at once. */
function changed() {
  running.abort();
  clearTimeout(timer);
  timer = setTimeout(classifyAll, DEBOUNCE_MS);
  draw();
}

/** The chosen photo first, then the others; photos whose answer fits the question are left alone. */
async function classifyAll() {
  clearTimeout(timer);
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const asked = question();
  draw();
  for (const photo of [state.current, ...state.photos.filter((other) => other !== state.current)]) {
    if (photo === null || photo.asked === asked) continue;
    const answer = await classify(photo, signal);
    if (signal.aborted) return; // a newer question is on its way: this answer is void
    Object.assign(photo, answer, { asked });
    draw();
    if (photo === state.current) announce(photo);
    if (answer.error?.status === 401) return;
  }
}

/** An answer or an error, never a throw. */
async function classify(photo, signal) {
  const start = performance.now();
  try {
    photo.prepared ??= await prepare(photo.file, limits);
    const answer = await (await ask(photo.prepared.body, signal)).json();
    const [result] = answer.results;
    if (result.error) return { answer: null, error: new Failure(sentence(result.error), 422, result.error_code) };
    return { answer, error: null, elapsed: performance.now() - start };
  } catch (error) {
    if (error.status === 401) askForKey();
    return { answer: null, error: error instanceof Failure ? error : new Failure("The server’s answer makes no sense to this page.") };
  }
}

function ask(body, signal) {
  const options = new URLSearchParams({ top_k: wanted() });
  if (state.names.length > 0) options.set("mode", state.only ? "only" : "extend");
  for (const name of state.names) options.append("classes", name);
  const onWait = (seconds) => say(`The server is busy. Trying once more in ${Math.ceil(seconds)} s.`);
  const common = { method: "POST", signal, onWait };
  if (String(options).length <= LONGEST_QUERY) {
    const type = body.type.startsWith("image/") ? body.type : "application/octet-stream";
    return request(`v1/classify?${options}`, { ...common, body, headers: { "Content-Type": type } });
  }
  const form = new FormData();
  for (const [key, value] of options) form.append(key, value);
  form.append("image", body, "photo");
  return request("v1/classify", { ...common, body: form });
}

async function loadModel() {
  try {
    state.model = await (await request("v1/model")).json();
    const given = state.model.limits ?? {};
    limits.bytes = given.body_bytes ?? limits.bytes;
    limits.pixels = given.pixels ?? limits.pixels;
    limits.side = given.side ?? limits.side;
    $("name").maxLength = given.characters ?? 256;
  } catch (error) {
    if (error.status === 401) askForKey();
  }
  draw();
}

async function keep(name) {
  try {
    await request(`v1/classes/${encodeURIComponent(name)}`, { method: "PUT" });
    say(`“${name}” is now one of the server’s classes.`);
    state.revision += 1;
    removeName(name);
    await loadModel();
  } catch (error) {
    showProblem(error);
  }
}

// ------------------------------------------------------------------------------------------------------------ photos

function addPhotos(files) {
  const added = [...files].slice(0, MOST_PHOTOS - state.photos.length)
    .map((file) => ({ file, name: file.name || "pasted photo", url: URL.createObjectURL(file), asked: null, answer: null, error: null }));
  if (added.length < files.length) say(`This page holds ${MOST_PHOTOS} photos. Remove some to add more.`);
  if (added.length === 0) return;
  state.photos.push(...added);
  [state.current] = added;
  classifyAll();
}

function choosePhoto(photo) {
  state.current = photo;
  classifyAll();
  if (photo.asked === question()) announce(photo);
}

function removePhoto() {
  const position = state.photos.indexOf(state.current);
  if (position < 0) return;
  URL.revokeObjectURL(state.current.url);
  state.photos.splice(position, 1);
  state.current = state.photos[Math.min(position, state.photos.length - 1)] ?? null;
  classifyAll();
  (state.current === null ? $("choose") : $("remove")).focus();
}

// ------------------------------------------------------------------------------------------------------- class names

const spelling = (name) => name.trim().split(/\s+/).join(" ").toLowerCase();

/** Add what is not there yet; returns whether anything was given. */
function addNames(text) {
  const given = text.split(/[,\n\r]+/).map((name) => name.trim()).filter((name) => name !== "");
  const known = new Set(state.names.map(spelling));
  const fresh = given.filter((name) => !known.has(spelling(name)) && known.add(spelling(name)));
  if (fresh.length > 0) {
    state.names.push(...fresh);
    changed();
    $("name").scrollIntoView({ block: "nearest" });
  }
  return given.length > 0;
}

function removeName(name) {
  state.names = state.names.filter((other) => other !== name);
  if (state.names.length === 0) state.only = false;
  changed();
}

// ----------------------------------------------------------------------------------------------------------- drawing

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function show(id, text) {
  $(id).textContent = text;
  $(id).hidden = text === "";
}

function draw() {
  drawStage();
  drawStrip();
  drawNames();
  drawRanking();
}

function drawStage() {
  const photo = state.current;
  const preview = $("preview");
  $("stage").classList.toggle("bare", photo === null);
  $("invitation").hidden = photo !== null;
  $("remove").hidden = photo === null;
  preview.hidden = photo === null || photo.unseen === true;
  $("unseen").hidden = photo?.unseen !== true;
  if (photo === null) preview.removeAttribute("src");
  else if (preview.src !== photo.url) preview.src = photo.url;
  preview.alt = photo === null ? "" : `The chosen photo, ${photo.name}`;
  $("choose").textContent = photo === null ? "Choose photos" : "Add photos";
  $("choose").classList.toggle("primary", photo === null);
  show("photo-note", photo?.prepared?.note ?? "");
}

function drawStrip() {
  const strip = $("strip");
  strip.hidden = state.photos.length < 2;
  while (strip.children.length > state.photos.length) strip.lastChild.remove();
  state.photos.forEach((photo, position) => {
    const item = strip.children[position] ?? strip.appendChild(thumbnail(position));
    const [button] = item.children;
    const [image, caption] = button.children;
    const source = photo.unseen ? BLANK : photo.url;
    if (image.src !== source) image.src = source;
    const best = photo.answer?.results[0].predictions[0]?.label;
    caption.textContent = photo.error ? "not classified" : best ?? "…";
    caption.classList.toggle("failed", photo.error !== null);
    button.title = photo.name;
    button.setAttribute("aria-label", `Photo ${position + 1}, ${photo.name}: ${caption.textContent}`);
    button.setAttribute("aria-current", String(photo === state.current));
  });
}

function cannotShow(photo) {
  if (photo === undefined || photo === null || photo.unseen) return;
  photo.unseen = true;
  draw();
}

function thumbnail(position) {
  const button = element("button");
  button.type = "button";
  button.append(Object.assign(element("img"), { alt: "", loading: "lazy", decoding: "async" }), element("span"));
  button.addEventListener("click", () => choosePhoto(state.photos[position]));
  button.firstChild.addEventListener("error", (event) => { if (event.target.src !== BLANK) cannotShow(state.photos[position]); });
  const item = element("li");
  item.append(button);
  return item;
}

function drawNames() {
  const shown = [...$("chips").children].map((chip) => chip.firstChild.textContent);
  if (JSON.stringify(shown) !== JSON.stringify(state.names)) $("chips").replaceChildren(...state.names.map(chip));
  $("clear").hidden = state.names.length === 0;
  $("only").disabled = state.names.length === 0;
  $("only").checked = state.only;
  $("name").placeholder = state.names.length === 0 ? "e.g. latte art" : "Another name";
}

function chip(name, position) {
  const button = element("button", "", "×");
  button.type = "button";
  button.setAttribute("aria-label", `Remove ${name}`);
  button.addEventListener("click", () => {
    removeName(name);
    ($("chips").children[position]?.lastChild ?? $("name")).focus();
  });
  const item = element("li");
  item.append(Object.assign(element("span", "", name), { title: name }), button);
  return item;
}

function drawRanking() {
  const photo = state.current;
  const answer = photo?.answer ?? null;
  const all = (answer?.results[0].predictions ?? []).map((prediction, position) => ({ rank: position + 1, ...prediction }));
  const top = all.slice(0, state.topK);
  const own = new Set(state.names.map(spelling));
  const lower = all.slice(state.topK).filter((prediction) => own.has(spelling(prediction.label))).slice(0, MOST_LOWER);
  drawBars($("bars"), top);
  drawBars($("lower-bars"), lower);
  const shown = new Set([...top, ...lower].map((prediction) => spelling(prediction.label)));
  const unseen = answer === null || photo.asked !== question() ? [] : state.names.filter((name) => !shown.has(spelling(name)));
  show("beyond", unseen.length === 0 ? "" : `Lower still: ${brief(unseen)}`);
  $("lower").hidden = lower.length === 0 && unseen.length === 0;
  $("legend").hidden = ![...top, ...lower].some((prediction) => prediction.source === "extended");
  $("locked").hidden = photo?.error?.status !== 401;
  $("empty").hidden = photo !== null;
  $("known").textContent = state.model?.classes ? `The server knows ${number.format(state.model.classes)}.` : "";
  $("among").textContent = answer === null ? "" : `of ${number.format(answer.classes)} ${answer.classes === 1 ? "class" : "classes"}`;
  $("ranking").setAttribute("aria-busy", String(photo !== null && photo.asked !== question()));
  if (photo?.error && photo.error.status !== 401) showProblem(photo.error); else $("problem").hidden = true;
  drawFooter(photo);
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
    if (extended && state.model?.writes === true) label.append(keepButton(prediction.label));
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
  return row;
}

function keepButton(name) {
  const button = element("button", "keep quiet", "Keep this class");
  button.type = "button";
  button.setAttribute("aria-label", `Keep the class ${name} on the server`);
  button.addEventListener("click", () => keep(name));
  return button;
}

function drawFooter(photo) {
  const times = photo?.answer?.timings_ms;
  const sum = times && Object.values(times).reduce((total, value) => total + value, 0);
  $("timing").textContent = times ? `${Math.round(photo.elapsed)} ms, of which the server computed ${sum.toFixed(1)} ms` : "";
  const provider = photo?.answer?.provider ?? state.model?.provider ?? "";
  const digest = photo?.answer?.bundle ?? state.model?.digest ?? "";
  const parts = [state.model?.backbone, digest && `bundle ${digest.replace(/^sha256:/, "").slice(0, 8)}`, provider.replace("ExecutionProvider", "")];
  $("model").textContent = parts.filter(Boolean).join(" · ");
}

function showProblem(error) {
  $("problem").hidden = false;
  if ($("problem").firstChild.textContent !== error.message) $("problem").firstChild.textContent = error.message;
}

function say(text) {
  $("status").textContent = text;
}

function announce(photo) {
  const best = photo.answer?.results[0].predictions.slice(0, 3) ?? [];
  if (best.length > 0) say(best.map((prediction) => `${prediction.label} ${percent.format(prediction.score)}`).join(", "));
}

function askForKey() {
  if (apiKey.get() !== null) $("key-note").textContent = "The server did not accept that key.";
  apiKey.set(null);
  if ($("key-form").hidden) {
    $("key-form").hidden = false;
    $("key").focus();
  }
}

// ------------------------------------------------------------------------------------------------------------ events

$("choose").addEventListener("click", () => $("files").click());
$("shoot").addEventListener("click", () => $("camera").click());
$("stage").addEventListener("click", () => { if (state.current === null) $("files").click(); });
$("remove").addEventListener("click", removePhoto);
$("again").addEventListener("click", () => { state.revision += 1; loadModel(); classifyAll(); });
for (const input of [$("files"), $("camera")]) {
  input.addEventListener("change", () => { addPhotos(input.files); input.value = ""; });
}
$("preview").addEventListener("error", () => cannotShow(state.current));

const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragover", (event) => { if (carriesFiles(event)) { event.preventDefault(); document.body.classList.add("dragging"); } });
addEventListener("dragleave", (event) => { if (event.relatedTarget === null) document.body.classList.remove("dragging"); });
addEventListener("drop", (event) => {
  document.body.classList.remove("dragging");
  if (carriesFiles(event)) { event.preventDefault(); addPhotos(event.dataTransfer.files); }
});
addEventListener("paste", (event) => {
  const files = event.clipboardData?.files ?? [];
  if (files.length > 0) { event.preventDefault(); addPhotos(files); }
});

const nameInput = $("name");
nameInput.addEventListener("paste", (event) => {
  const text = event.clipboardData.getData("text");
  if (event.clipboardData.files.length === 0 && /[,\n\r]/.test(text)) { event.preventDefault(); addNames(text); }
});
nameInput.addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === "Backspace" && nameInput.value === "" && state.names.length > 0) removeName(state.names.at(-1));
  if (event.key !== "Enter" && event.key !== ",") return;
  event.preventDefault();
  if (addNames(nameInput.value)) nameInput.value = "";
});
$("add").addEventListener("click", () => { if (addNames(nameInput.value)) nameInput.value = ""; nameInput.focus(); });
$("clear").addEventListener("click", () => { state.names = []; state.only = false; changed(); nameInput.focus(); });
$("only").addEventListener("change", () => { state.only = $("only").checked; changed(); });
$("top-k").addEventListener("change", () => { state.topK = Number($("top-k").value); changed(); });
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  apiKey.set($("key").value.trim());
  $("key").value = "";
  $("key-form").hidden = true;
  state.revision += 1;
  loadModel();
  classifyAll();
});

$("top-k").value = String(state.topK); // browsers restore what was chosen before a reload
draw();
loadModel();
