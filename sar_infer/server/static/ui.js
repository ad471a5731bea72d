// The page to try the classifier. Text from users and from the server only ever becomes textContent.

import { apiKey, Failure, request, sentence } from "./api.js";
import * as bank from "./bank.js";
import { $, button, carriesFiles, element, mark, number, percent, plural, redraw, say, show, spelling } from "./dom.js";
import * as groups from "./groups.js";
import { prepare } from "./photo.js";
import { drawBoxes, drawRanking, unknown } from "./ranking.js";

const DEBOUNCE_MS = 200;
const LONGEST_QUERY = 4000; // more names than that travel in the body
const LONGEST_RANKING = 1000; // how far down one's own names are looked for
const MOST_PHOTOS = 60;
const PLACES = ["first", "second", "third", "fourth", "fifth"];
const BLANK = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";

const state = { photos: [], current: null, names: [], only: false, topK: 5, unknown: "", several: false, model: null, revision: 0 };
const limits = { bytes: 10 * 2 ** 20, pixels: 50e6, side: 16384, images: 16 };
let running = new AbortController();
let timer = 0;
let before = null; // the best class of the chosen photo before a change of the server's classes
let change = null; // that change, once it is made: `before`, and the name of the class where the server has it then

// ------------------------------------------------------------------------------------------------------- classifying

/** How many predictions to ask for: with names of one's own, enough to say where they stand. */
function wanted() {
  const classes = state.model?.classes ?? LONGEST_RANKING;
  return state.names.length === 0 ? state.topK : Math.max(state.topK, Math.min(LONGEST_RANKING, classes + state.names.length));
}

const question = () => JSON.stringify([state.names, state.only, wanted(), state.several, state.revision]);

/** Ask again a moment after the last change. What is still on its way is dropped at once. */
function changed() {
  running.abort();
  clearTimeout(timer);
  timer = setTimeout(classifyAll, DEBOUNCE_MS);
  draw();
}

/** The chosen photo first, then the others; photos whose answer fits the question stay as they are. */
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
    if (photo === state.current) announce(photo, showEffect(photo));
    if (answer.error?.status === 401) return;
  }
}

/** An answer or an error, never a throw. */
async function classify(photo, signal) {
  if (photo.error?.final) return { answer: null, error: photo.error };
  try {
    photo.prepared ??= await prepare(photo.file, limits);
    const start = performance.now();
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
  const options = new URLSearchParams({ top_k: wanted(), [state.several ? "several" : "explain"]: true });
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
    limits.images = given.images ?? limits.images;
    limits.pixels = given.pixels ?? limits.pixels;
    limits.side = given.side ?? limits.side;
    $("name").maxLength = given.characters ?? 256;
    drawThresholds();
    await bank.load(state.model);
    lookUp(state.names);
  } catch (error) {
    if (error.status === 401) askForKey();
  }
  draw();
}

/** The server has a threshold for some bundles and banks; then it is the page's choice until another is made. */
function drawThresholds() {
  const offered = $("unknown").querySelector("[value=server]");
  const offers = state.model.unknown;
  if (offers && !offered) {
    $("unknown").options[0].after(Object.assign(element("option", "", "by threshold"), { value: "server" }));
    state.unknown = "server";
  }
  if (!offers && offered) {
    offered.remove();
    if (state.unknown === "server") state.unknown = "";
  }
  $("unknown").value = state.unknown;
  $("several").disabled = !state.model.several;
  if (!state.model.several) state.several = false;
  $("several").checked = state.several;
}

bank.connect({
  limits,
  locked: askForKey,
  changing() { before = best(state.current); },
  waiting: () => drawNames(),
  async changed(name, exists) {
    running.abort(); // its answers are of before the change
    clearTimeout(timer);
    change = { before, name: exists ? name : "" };
    state.revision += 1;
    state.names = state.names.filter((other) => spelling(other) !== spelling(name));
    if (state.names.length === 0) state.only = false;
    await loadModel();
    await classifyAll();
  },
});

groups.connect({ limits, photos: () => state.photos, locked: askForKey });

const best = (photo) => photo?.answer?.results[0].predictions[0] ?? null;
const told = ({ label, score }) => `${label}, ${percent.format(score)}`;

/** What a change of the server's classes did to the chosen photo, which is said once. */
function showEffect(photo) {
  const now = best(photo);
  const was = change?.before;
  const stands = change && standing(photo, change.name);
  change = null;
  if (!was || !now) return "";
  let effect = "";
  if (stands && was.label === now.label) effect = `This photo is still ${told(now)}${stands}.`;
  else if (told(was) !== told(now)) effect = `This photo was ${told(was)}; it is ${told(now)} now${stands}.`;
  if (effect) show("effect", effect);
  return effect;
}

/** The rank of a class below the best one; "" if it is the best, or is not asked for. */
function standing(photo, name) {
  const predictions = photo.answer?.results[0].predictions ?? [];
  const place = predictions.findIndex(({ label }) => spelling(label) === spelling(name));
  if (name === "" || state.only || predictions.length === 0 || place === 0) return "";
  if (place < 0) return `; ${name} is not among the best ${number.format(predictions.length)}`;
  return `; ${name} is ${PLACES[place] ?? `number ${place + 1}`} now, ${percent.format(predictions[place].score)}`;
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
  tellAgain();
}

/** Say the answer that is there already. */
function tellAgain() {
  if (state.current?.asked === question()) announce(state.current);
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

/** Add what is not there yet; returns whether anything was given. */
function addNames(text) {
  const given = text.split(/[,\n\r]+/).map((name) => name.trim()).filter((name) => name !== "");
  const known = new Set(state.names.map(spelling));
  const fresh = given.filter((name) => !known.has(spelling(name)) && known.add(spelling(name)));
  if (fresh.length > 0) {
    state.names.push(...fresh);
    changed();
    lookUp(fresh);
    $("name").scrollIntoView({ block: "nearest" });
  }
  return given.length > 0;
}

/** Show next to the names which of them the server has, or nearly has. */
async function lookUp(names) {
  await bank.lookUp(names).catch(() => {}); // without an answer there is nothing to say
  drawNames();
  const told = names.map((name) => [name, bank.note(name)]).filter(([, note]) => note !== "");
  if (told.length > 0) say(told.map(([name, note]) => `${name}: ${note}`).join("; "));
}

function removeName(name) {
  state.names = state.names.filter((other) => other !== name);
  if (state.names.length === 0) state.only = false;
  changed();
}

// ----------------------------------------------------------------------------------------------------------- drawing

function draw() {
  drawStage();
  groups.offer(state.model, state.photos.length);
  drawStrip();
  drawNames();
  const photo = state.current;
  drawRanking(photo, state, photo?.asked === question());
  drawBoxes(photo);
  if (photo?.error && photo.error.status !== 401) showProblem(photo.error); else $("problem").hidden = true;
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
    const [choice] = item.children;
    const [image, caption] = choice.children;
    const source = photo.unseen ? BLANK : photo.url;
    if (image.src !== source) image.src = source;
    const name = unknown(photo, state.unknown, state.model) ? "unknown" : best(photo)?.label;
    caption.textContent = photo.error ? "not classified" : name ?? "…";
    caption.classList.toggle("failed", photo.error !== null);
    choice.title = photo.name;
    choice.setAttribute("aria-label", `Photo ${position + 1}, ${photo.name}: ${caption.textContent}`);
    choice.setAttribute("aria-current", String(photo === state.current));
  });
}

function cannotShow(photo) {
  if (photo === undefined || photo === null || photo.unseen) return;
  photo.unseen = true;
  draw();
}

function thumbnail(position) {
  const made = button("", "", "", () => choosePhoto(state.photos[position]));
  made.replaceChildren(Object.assign(element("img"), { alt: "", loading: "lazy", decoding: "async" }), element("span"));
  made.firstChild.addEventListener("error", (event) => { if (event.target.src !== BLANK) cannotShow(state.photos[position]); });
  const item = element("li");
  item.append(made);
  return item;
}

function drawNames() {
  const shown = state.names.map((name) => [name, bank.note(name), bank.photoCount(name)]);
  redraw($("chips"), [shown, bank.writes()], () => state.names.map(chip));
  const ranked = rankedNames();
  state.names.forEach((name, position) => mark($("chips").children[position], bank.waits(name) || !ranked.has(name)));
  $("clear").hidden = state.names.length === 0;
  $("only").disabled = state.names.length === 0;
  $("only").checked = state.only;
  $("name").placeholder = state.names.length === 0 ? "e.g. latte art" : "Another name";
}

/** The names that the chosen photo was ranked with; without a photo, and where it failed, none waits. */
function rankedNames() {
  const photo = state.current;
  if (photo === null || photo.error) return new Set(state.names);
  return new Set(photo.asked === null ? [] : JSON.parse(photo.asked)[0]);
}

function chip(name, position) {
  const item = element("li");
  const note = bank.note(name);
  const exists = note === "already a class";
  const photos = bank.photoCount(name);
  item.classList.toggle("known", exists);
  item.append(Object.assign(element("span", "", name), { title: name }));
  if (note) item.append(element("span", "count", note));
  if (photos && !bank.writes()) item.append(element("span", "count", plural(photos)));
  if (bank.writes() && bank.embeds() && !exists) item.append(button("keep quiet", "Keep", `Keep the class ${name} on the server`, () => bank.keep(name)));
  if (bank.writes()) item.append(bank.photosButton(name, photos));
  item.append(button("cross", "×", `Remove ${name}`, () => {
    removeName(name);
    ($("chips").children[position]?.lastChild ?? $("name")).focus();
  }));
  return bank.takesPhotos(item, () => name);
}

function showProblem(error) {
  $("problem").hidden = false;
  $("again").hidden = error.final === true;
  if ($("problem").firstChild.textContent !== error.message) $("problem").firstChild.textContent = error.message;
}

function announce(photo, effect = "") {
  const result = photo.answer?.results[0];
  const shares = (result?.labels ?? result?.predictions.slice(0, 3) ?? []).map(told);
  const reason = unknown(photo, state.unknown, state.model);
  if (reason || shares.length > 0) say([effect, reason && `Unknown. ${reason}`, shares.join("; ")].filter(Boolean).join(" "));
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
$("sample").addEventListener("click", async (event) => {
  event.stopPropagation(); // the stage opens the chooser
  const { SAMPLE } = await import("./sample.js");
  addPhotos([new File([Uint8Array.from(atob(SAMPLE), (letter) => letter.charCodeAt(0))], "sample.jpg", { type: "image/jpeg" })]);
});
$("stage").addEventListener("click", () => { if (state.current === null) $("files").click(); });
$("remove").addEventListener("click", removePhoto);
$("again").addEventListener("click", () => { state.revision += 1; loadModel(); classifyAll(); });
for (const input of [$("files"), $("camera")]) {
  input.addEventListener("change", () => { addPhotos(input.files); input.value = ""; });
}
$("preview").addEventListener("error", () => cannotShow(state.current));

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
$("unknown").addEventListener("change", () => { state.unknown = $("unknown").value; changed(); tellAgain(); });
$("several").addEventListener("change", () => { state.several = $("several").checked; changed(); });
$("preview").addEventListener("load", () => drawBoxes(state.current));
addEventListener("resize", () => drawBoxes(state.current));
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
$("unknown").value = state.unknown;
draw();
loadModel();
