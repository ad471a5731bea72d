// Groups among the photos of the page: found by the server, named by the user, and each a class of the server then.

import { Failure, request } from "./api.js";
import { teach } from "./bank.js";
import { $, button, element, percent, plural, say } from "./dom.js";
import { small } from "./photo.js";

export const FEWEST = 8; // photos below which there is nothing to group
const MOST_SHOWN = 12; // photos of a group that become photos of its class: the most typical
const AT_ONCE = 16; // photos that are encoded in one request
const OF_A_PHOTO = [413, 415, 422]; // why a request fails if one of its photos is bad

let page = { limits: {}, photos: () => [], locked() {} };

/** Connect the page: its limits, its photos, and what it does where a key is needed. */
export function connect(given) {
  page = given;
  $("group").addEventListener("click", find);
}

/** Show what can be done with a number of photos on a server that makes groups. */
export function offer(model, count) {
  $("group").hidden = !(model?.suggests && model?.writes && count >= FEWEST);
}

async function find() {
  const photos = page.photos().filter((photo) => !photo.error?.final);
  $("group").disabled = true;
  $("grouping").hidden = false;
  $("groups").replaceChildren();
  $("grouping").scrollIntoView({ behavior: "smooth", block: "nearest" });
  $("grouping").setAttribute("aria-busy", "true");
  try {
    await encode(photos);
    const readable = photos.filter((photo) => photo.embedding);
    if (readable.length < 2) throw new Failure("None of these photos can be read.");
    tell(`Looking for groups among ${plural(readable.length)} …`);
    const body = JSON.stringify({ embeddings: readable.map((photo) => photo.embedding) });
    const answer = await (await request("v1/suggest", { method: "POST", body, headers: { "Content-Type": "application/json" } })).json();
    draw(answer, readable);
  } catch (error) {
    if (error.status === 401) page.locked();
    tell(error instanceof Failure ? error.message : "The server’s answer makes no sense to this page.");
  } finally {
    $("group").disabled = false;
    $("grouping").setAttribute("aria-busy", "false");
  }
}

/** Give each photo its embedding; one that the server cannot read stays without. */
async function encode(photos) {
  const fresh = photos.filter((photo) => photo.embedding === undefined);
  const size = Math.min(AT_ONCE, page.limits.images);
  for (let start = 0; start < fresh.length; start += size) {
    tell(`Reading photos: ${start} of ${fresh.length} …`);
    const some = fresh.slice(start, start + size);
    try {
      await encodeTogether(some);
    } catch (error) {
      if (!OF_A_PHOTO.includes(error.status)) throw error;
      for (const photo of some) await encodeTogether([photo]).catch(() => { photo.embedding = null; }); // one of them is bad
    }
  }
}

async function encodeTogether(photos) {
  const input = await Promise.all(photos.map(({ file }) => small(file)));
  const body = JSON.stringify({ input, modality: "image", encoding_format: "base64" });
  const { data } = await (await request("v1/embeddings", { method: "POST", body, headers: { "Content-Type": "application/json" } })).json();
  data.forEach(({ index, embedding }) => { photos[index].embedding = embedding; });
}

function tell(text) {
  $("groups-note").textContent = text;
  say(text);
}

function draw({ groups, classes }, photos) {
  const fresh = groups.filter(({ like }) => like === null);
  const alike = groups.filter(({ like }) => like !== null);
  const count = fresh.reduce((sum, { size }) => sum + size, 0);
  tell(`${count} of ${plural(photos.length)} look like none of the ${classes} classes. Name a group, and it is one.`);
  $("groups").replaceChildren(...[...fresh, ...alike].map((group, position) => card(group, position, photos)));
  $("grouping").scrollIntoView({ behavior: "smooth", block: "start" });
}

function card({ size, like, nearest, photos: numbers }, position, photos) {
  const item = element("li");
  const chosen = new Set(numbers.slice(0, MOST_SHOWN).map((number) => photos[number]));
  const head = element("div", "line head");
  head.append(element("h3", "", like === null ? `Group ${position + 1}` : `Like ${like}`), element("span", "note", size > chosen.size ? `${plural(size)}, ${chosen.size} shown` : plural(size)));
  const pictures = element("div", "pictures");
  pictures.append(...[...chosen].map((photo) => choice(photo, chosen)));
  const form = element("form", "line");
  const name = Object.assign(element("input"), { maxLength: $("name").maxLength, placeholder: like ?? nearest[0]?.label ?? "Name", autocomplete: "off", spellcheck: false, required: true });
  name.setAttribute("aria-label", `Name of group ${position + 1}`);
  const make = element("button", "", "Make a class");
  form.append(name, make);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (name.value.trim() === "" || chosen.size === 0) return;
    make.disabled = true;
    await teach(name.value.trim(), [...chosen].map(({ file }) => file));
    make.disabled = false;
    item.classList.toggle("named", !$("taught").classList.contains("bad"));
    note.textContent = $("taught").querySelector("p").textContent; // what was said above, where nobody looks now
  });
  const near = nearest.map(({ label, score }) => `${label} ${percent.format(score)}`).join(", ");
  const note = element("p", "note", near ? `Nearest: ${near}` : "");
  item.append(head, pictures, form, note);
  return item;
}

/** A photo of a group, which a click leaves out. */
function choice(photo, chosen) {
  const made = button("", "", photo.name, () => {
    const used = !chosen.delete(photo);
    if (used) chosen.add(photo);
    made.setAttribute("aria-pressed", String(used));
  });
  made.setAttribute("aria-pressed", "true");
  made.title = photo.name;
  made.replaceChildren(Object.assign(element("img"), { src: photo.url, alt: "", decoding: "async" }));
  return made;
}
