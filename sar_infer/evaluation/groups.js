// Draws groups of photos with a field for the name of each, and saves the names as a list that sar-bank add takes.
const FILE = "named.csv";
const entries = []; // what can be named: its field, its photos, and what the list calls it
let saved = "";

/** A field for the name of a class. */
function field(label, hint) {
  const made = Object.assign(element("input"), { type: "text", maxLength: 256, autocomplete: "off", spellcheck: false, placeholder: hint });
  made.setAttribute("list", "names");
  made.setAttribute("aria-label", label);
  made.addEventListener("input", drawCount);
  made.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    const fields = entries.map((entry) => entry.field).filter((other) => other.offsetParent !== null);
    fields[fields.indexOf(made) + 1]?.focus();
  });
  return made;
}

/** The picture of a photo, or its name where there is none. */
function shown(photo) {
  const made = photo.picture === null ? element("span", "blank", isolated(photo.key.split("/").pop())) : picture(photo.picture, "");
  made.title = photo.key;
  return made;
}

/** A photo of a group, which a click leaves out of it. */
function choice(photo, number) {
  const made = element("button", "photo", shown(photo));
  made.type = "button";
  made.setAttribute("aria-label", `Photo ${number + 1}, ${photo.key}`);
  made.setAttribute("aria-pressed", "true");
  made.disabled = photo.path === null;
  photo.used = photo.path !== null;
  made.addEventListener("click", () => {
    photo.used = !photo.used;
    made.setAttribute("aria-pressed", String(photo.used));
    drawCount();
  });
  return made;
}

const near = (answers) => answers.flatMap(({ label, score }, at) => [at ? ", " : "", isolated(label), ` ${percent.format(score)}`]);

function group(one, number) {
  const title = one.like === null ? `Group ${number + 1}` : ["Like ", isolated(one.like)];
  const of = one.size > one.photos.length ? `${plural(one.size, "photo")}, the ${one.photos.length} most typical` : plural(one.size, "photo");
  const name = field(`Name of group ${number + 1}`, one.like ?? one.nearest[0]?.label ?? "Name");
  entries.push({ field: name, photos: one.photos, said: String(number + 1) });
  const head = element("div", "head", [element("h3", "", title), element("p", "note", of)]);
  const nearest = element("p", "note", one.nearest.length ? ["Nearest: ", ...near(one.nearest)] : "");
  return element("li", "", [head, element("div", "photos", one.photos.map(choice)), name, nearest]);
}

function label(one, number) {
  one.photo.used = one.photo.path !== null;
  const name = field(`Class of photo ${number + 1}`, one.answers[0]?.label ?? "Class");
  name.disabled = !one.photo.used;
  entries.push({ field: name, photos: [one.photo], said: "worth a label" });
  return element("li", "", [shown(one.photo), element("p", "note", near(one.answers)), name]);
}

/** A cell of CSV. */
const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

/** The list: a row for each photo of what has a name; a photo that is in two places counts where it comes last. */
function list() {
  const rows = new Map();
  for (const { field: { value }, photos, said } of entries) {
    const name = value.trim();
    if (name === "") continue;
    for (const photo of photos) if (photo.used) rows.set(photo.path, [name, photo.path, said]);
  }
  return [...rows.values()];
}

const csv = () => [["class", "photo", "group"], ...list()].map((row) => `${row.map(cell).join(",")}\n`).join("");

function drawCount() {
  const rows = list();
  const names = new Set(rows.map(([name]) => name.toLowerCase()));
  $("count").textContent = rows.length ? `${plural(rows.length, "photo")} of ${plural(names.size, "class", "classes")}` : "Nothing is named yet";
  $("save").disabled = rows.length === 0;
  $("copy").disabled = rows.length === 0;
  $("command").hidden = rows.length === 0;
}

function save() {
  const url = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  Object.assign(document.createElement("a"), { href: url, download: FILE }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
  saved = csv();
  $("count").textContent = `Saved as ${FILE}. Then run:`;
}

async function copy() {
  try {
    await navigator.clipboard.writeText(csv());
    saved = csv();
    $("count").textContent = `Copied. Paste it into ${FILE}, then run:`;
  } catch {
    $("count").textContent = "The browser forbids to copy. Save the list.";
  }
}

const fresh = data.groups.filter((one) => one.like === null);
const alike = data.groups.filter((one) => one.like !== null);
const count = (groups) => groups.reduce((sum, one) => sum + one.size, 0);
$("among").textContent = `${plural(data.photos, "photo")}; ${number.format(count(fresh))} of them look like none of ${plural(data.classes, "class", "classes")}`;
$("alike-title").textContent = `Look like a class that is there: ${plural(count(alike), "photo")} in ${plural(alike.length, "group")}`;
$("new-section").hidden = fresh.length === 0;
$("alike-section").hidden = alike.length === 0;
$("labels-section").hidden = data.labels.length === 0;
$("new").append(...fresh.map(group));
$("labels").append(...data.labels.map(label));
$("alike").append(...alike.map((one, at) => group(one, fresh.length + at)));
$("names").append(...data.names.map((name) => Object.assign(element("option"), { value: name })));
$("command").textContent = data.command;
$("save").addEventListener("click", save);
$("copy").addEventListener("click", copy);
addEventListener("beforeunload", (event) => { if (list().length > 0 && csv() !== saved) event.preventDefault(); });
drawCount();
