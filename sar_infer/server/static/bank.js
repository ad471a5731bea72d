// The server's own classes: shown as they are, kept, taught by photos, removed, and every change taken back.

import { Failure, request, sentence } from "./api.js";
import { $, button, carriesFiles, element, mark, number, place, plural, redraw, say, spelling } from "./dom.js";
import { prepare } from "./photo.js";

const MOST_SHOWN = 24; // of the server's classes, the last that came first
const MOST_NAMED = 6; // in a sentence
const FORM_BYTES = 1024; // of a form, around each photo

const DEBOUNCE_MS = 200;
const MOST_LOOKED_UP = 50; // of the names that are typed together

const bank = { classes: [], count: 0, found: 0, writes: false, embeds: true }; // `classes`: some of those that were `found`
const notes = new Map(); // what the server's classes have to do with a name that was typed, by its spelling
const photoCounts = new Map(); // of classes whose names were typed
const pending = new Map(); // names of classes that a change is on its way for, and what it does
let page = { limits: {}, changing() {}, waiting() {}, changed() {}, locked() {} }; // what the page does about a change
let chosen = ""; // the class that photos are being chosen for
let thumbnails = [];
let timer = 0;

export const writes = () => bank.writes;

/** Whether a name without photos makes a class. */
export const embeds = () => bank.embeds;

/** Connect the page: its limits, and what it does before a change, while one waits, after it, and where a key is needed. */
export function connect(given) {
  page = given;
  $("examples").addEventListener("change", () => { teach(chosen, $("examples").files); $("examples").value = ""; });
  $("find").value = ""; // browsers restore what was typed before a reload
  $("find").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(find, DEBOUNCE_MS); });
}

export async function load(model) {
  bank.writes = model.writes === true;
  bank.embeds = model.embeds !== false;
  bank.count = model.classes;
  notes.clear();
  photoCounts.clear();
  await list();
}

const ask = async (options) => (await request(`v1/classes?${new URLSearchParams(options)}`)).json();

/** Show the classes that are looked for; where none are, the last that came first. */
async function list() {
  const like = $("find").value.trim();
  const offset = like === "" ? Math.max(0, bank.count - MOST_SHOWN) : 0;
  const { classes, count } = await ask({ like, offset, limit: MOST_SHOWN });
  if ($("find").value.trim() !== like) return; // a later question is on its way
  const added = classes.filter((entry) => entry.origin === "added").reverse();
  Object.assign(bank, { classes: [...added, ...classes.filter((entry) => entry.origin !== "added")], found: count });
  draw();
}

async function find() {
  try {
    await list();
    say($("find").value.trim() === "" ? "" : `${number.format(bank.found)} found.`);
  } catch (error) {
    refuse(error);
  }
}

/** Note which names are classes of the server already, or differ from one only by a plural. */
export async function lookUp(names) {
  for (const name of names.slice(0, MOST_LOOKED_UP)) {
    const { classes } = await ask({ prefix: name.replace(/e?s$/i, "") });
    const entries = new Map(classes.map((entry) => [spelling(entry.name), entry]));
    const typed = spelling(name);
    const near = [`${typed}s`, `${typed}es`, typed.replace(/s$/, ""), typed.replace(/es$/, "")].find((other) => entries.has(other));
    notes.set(typed, entries.has(typed) ? "already a class" : near ? `close to ${entries.get(near).name}` : bank.embeds ? "" : "needs photos");
    photoCounts.set(typed, entries.get(typed)?.photos ?? 0);
  }
}

/** What the server's classes have to do with a name; "" if they have nothing, or it was not looked up. */
export const note = (name) => notes.get(spelling(name)) ?? "";

/** How many photos the server's class of a name that was typed has. */
export const photoCount = (name) => photoCounts.get(spelling(name)) ?? 0;

/** Whether a change of a class with this name is on its way. */
export const waits = (name) => pending.has(spelling(name));

function draw() {
  $("bank").hidden = bank.count === 0;
  $("teaching").hidden = !bank.writes;
  $("read-only").hidden = bank.writes || bank.count === 0;
  $("bank-count").textContent = number.format(bank.count);
  if (bank.found === bank.count) $("choice").textContent = choice();
  $("find").hidden = bank.count <= MOST_SHOWN;
  const rest = bank.found - bank.classes.length;
  const more = bank.found === 0 ? "no class has this in its name" : rest > 0 ? `and ${number.format(rest)} more` : "";
  const listed = new Set(bank.classes.map(({ name }) => spelling(name)));
  const coming = [...pending].filter(([typed]) => !listed.has(typed)).map(([, { name }]) => name);
  redraw($("bank-chips"), [coming, bank.classes, bank.writes, more], () => [
    ...coming.map(label),
    ...bank.classes.map(chip),
    ...(more ? [element("li", "rest", more)] : []),
  ]);
  for (const item of $("bank-chips").children) {
    const waiting = pending.get(spelling(item.firstChild.title ?? ""));
    mark(item, waiting !== undefined, waiting?.doing);
  }
}

/** Which classes a photo can be given, for before there is one. */
function choice() {
  const names = bank.classes.slice(0, MOST_NAMED).map(({ name }) => name);
  if (names.length === 0) return "";
  const rest = bank.count > names.length ? `, and ${number.format(bank.count - names.length)} more` : "";
  return `The ${place} chooses from ${number.format(bank.count)} ${bank.count === 1 ? "class" : "classes"}: ${names.join(", ")}${rest}.`;
}

function label(name) {
  const item = element("li");
  item.append(Object.assign(element("span", "", name), { title: name }));
  return item;
}

function chip({ name, origin, photos }) {
  const item = label(name);
  item.className = origin;
  if (bank.writes && origin !== "fixed") {
    item.append(photosButton(name, photos));
    item.append(button("cross", "×", `Remove the class ${name} from the ${place}`, () => remove(name)));
  } else if (photos) item.append(element("span", "count", plural(photos)));
  return takesPhotos(item, () => name);
}

/** A button that asks for photos of a class, and says how many it was given. */
export function photosButton(name, photos = 0) {
  const label = `Add photos to the class ${name}${photos ? `, which has ${number.format(photos)}` : ""}`;
  return button("keep quiet", photos ? `${plural(photos)} +` : "+ photos", label, () => { chosen = name; $("examples").click(); });
}

/** Let photos be dropped on the element of a class. */
export function takesPhotos(item, name) {
  const over = (event, on) => {
    if (!bank.writes || !carriesFiles(event)) return;
    event.preventDefault();
    item.classList.toggle("target", on);
  };
  item.classList.add("droppable");
  item.addEventListener("dragover", (event) => over(event, true));
  item.addEventListener("dragleave", (event) => over(event, false));
  item.addEventListener("drop", (event) => {
    over(event, false);
    if (!bank.writes || !carriesFiles(event)) return;
    event.stopPropagation(); // they are not photos to classify
    document.body.classList.remove("dragging");
    teach(name(), event.dataTransfer.files);
  });
  return item;
}

// ----------------------------------------------------------------------------------------------------------- changes

export const keep = (name) => change(name, "adding …", async (send) => {
  const { findings } = await send("PUT");
  return [`“${name}” is one of the ${place}’s classes now.`, ...findings.map(({ message }) => sentence(message))];
});

const remove = (name) => change(name, "removing …", async (send) => {
  await send("DELETE");
  return [`“${name}” is no longer one of the ${place}’s classes.`];
});

/** Give photos to a class of the server, which is made if it is not there. */
export async function teach(name, files) {
  const photos = [...files];
  if (photos.length === 0) return;
  say(`Adding ${plural(photos.length)} to “${name}”.`);
  await change(name, `adding ${plural(photos.length)} …`, async (send) => {
    const answers = [];
    for (const body of await forms(photos)) answers.push(await send("PUT", body));
    return told(answers, photos.length);
  }, photos);
}

/** Make a change of one step or more, show that it waits, tell it, and offer to take it back. */
async function change(name, doing, work, photos = []) {
  pending.set(spelling(name), { name, doing });
  draw();
  page.waiting();
  try {
    await changed(name, work, photos);
  } finally {
    settled(name);
  }
}

function settled(name) {
  pending.delete(spelling(name));
  draw();
  page.waiting();
}

async function changed(name, work, photos) {
  let steps = 0;
  let etag = null;
  let exists = false;
  let stale = false;
  const send = async (method, body) => {
    const answer = await request(`v1/classes/${encodeURIComponent(name)}`, { method, body });
    const done = answer.status === 204 ? {} : await answer.json();
    if (answer.status !== 200 || done.known < body?.getAll("image").length) steps += 1;
    etag = answer.headers.get("ETag");
    exists = method === "PUT";
    stale = done.calibrated === false;
    return done;
  };
  page.changing();
  try {
    const lines = await work(send);
    if (stale) lines.push("The bank has changed since it was calibrated; sar-bank calibrate fits it again.");
    const { count } = await (await request("v1/bank/history?limit=1")).json();
    tell(lines, { photos, undo: steps > 0 ? () => takeBack(name, { steps, latest: count }, etag) : null });
  } catch (error) {
    refuse(error);
    if (steps === 0) return; // else a part of it was done
  }
  pending.delete(spelling(name)); // what the page draws from here on is of after the change
  await page.changed(name, exists);
  if (document.activeElement === document.body) ($("undo") ?? $("name")).focus(); // what had the focus is gone
}

async function takeBack(name, what, etag) {
  page.changing();
  try {
    const headers = { "Content-Type": "application/json", "If-Match": etag };
    await request("v1/bank/rollback", { method: "POST", body: JSON.stringify(what), headers });
    tell([`The change to “${name}” was taken back.`]);
  } catch (error) {
    refuse(error);
    if (error.status !== 412) return; // else somebody else changed the classes: show them as they are
  }
  await page.changed(name);
  $("name").focus();
}

function refuse(error) {
  if (error.status === 401) page.locked();
  tell([error instanceof Failure ? error.message : "The server’s answer makes no sense to this page."], { bad: true });
}

/** Photos as forms, each within what the server takes at once. */
async function forms(photos) {
  const made = [];
  let count = 0;
  let bytes = 0;
  for (const file of photos) {
    const { body } = await prepare(file, page.limits);
    if (made.length === 0 || count >= page.limits.images || bytes + body.size > page.limits.bytes - FORM_BYTES) {
      made.push(new FormData());
      [count, bytes] = [0, 0];
    }
    made.at(-1).append("image", body, file.name || "photo");
    count += 1;
    bytes += body.size + FORM_BYTES;
  }
  return made;
}

function told(answers, sent) {
  const { name, photos } = answers.at(-1);
  const known = answers.reduce((sum, answer) => sum + answer.known, 0);
  const lines = known === sent ? [] : [`${plural(sent - known)} added to “${name}”; added so far: ${number.format(photos)}.`];
  if (known > 0) lines.push(`${plural(known)} counted already.`);
  for (const finding of answers.flatMap((answer) => answer.findings)) {
    lines.push(sentence(finding.message.replace(/'image\[(\d+)\]'/, (_, place) => `number ${Number(place) + 1}`)));
  }
  return lines;
}

/** Say what was done, with the photos that did it, and how to take it back. */
function tell(lines, { photos = [], undo = null, bad = false } = {}) {
  thumbnails.forEach((url) => URL.revokeObjectURL(url));
  thumbnails = photos.slice(0, 6).map((file) => URL.createObjectURL(file));
  const head = element("div", "line");
  head.append(...thumbnails.map((src) => Object.assign(element("img"), { src, alt: "" })), element("p", "", lines[0]));
  if (undo) head.append(Object.assign(button("quiet", "Undo", "", undo), { id: "undo" }));
  $("taught").replaceChildren(head, ...lines.slice(1).map((line) => element("p", "note", line)), Object.assign(element("p", "effect"), { id: "effect" }));
  $("taught").classList.toggle("bad", bad);
  $("taught").hidden = false;
  say(lines.join(" "));
}
