// Draws photos in doubt with a choice for each, and saves a list that --exclude takes and a script that moves photos.
const SCRIPT = "move.sh";
const choices = []; // what was chosen: a photo, "keep", "move" or "drop", and the class and folder to move to
let saved = "";

/** The picture of a photo, or its name where there is none. */
function shown(photo) {
  const text = `${photo.name}, in ${photo.label}`;
  const made = photo.picture === null ? element("span", "blank", isolated(photo.name.split("/").pop())) : picture(photo.picture, text);
  made.title = photo.name;
  return made;
}

/** A group of radio buttons; the first is chosen. `choose` gets the value of the one that is clicked. */
function options(legend, values, choose) {
  const group = element("fieldset", "", element("legend", "hidden", legend));
  const name = legend;
  values.forEach(([value, text, possible], at) => {
    const input = Object.assign(element("input"), { type: "radio", name, value, checked: at === 0, disabled: !possible });
    input.addEventListener("change", () => { choose(value); drawCount(); });
    group.append(element("label", "", [input, element("span", "", text)]));
  });
  return group;
}

const folder = (path) => path.replace(/[\\/][^\\/]*$/, "");

function strip(title, photos) {
  const pictures = photos.length ? element("div", "strip", photos.map(shown)) : element("p", "note", "no photo at hand");
  return element("div", "", [element("h3", "", title), pictures]);
}

function issue(one) {
  const { photo, suggested } = one;
  const like = data.typical[suggested] ?? [];
  const target = like.map((typical) => typical.path).find((path) => path !== null);
  const choice = { photo, action: "keep", to: suggested, folder: target ? folder(target) : null };
  choices.push(choice);
  const caption = element("figcaption", "", [
    element("span", "", ["in ", isolated(photo.label), ", looks like ", element("strong", "", isolated(suggested))]),
    element("span", "file", [isolated(photo.name), `; right with probability ${percent.format(one.probability)}`]),
  ]);
  const values = [["keep", "Keep", true], ["move", ["Move to ", isolated(suggested)], choice.folder !== null && photo.path !== null], ["drop", "Drop", photo.path !== null]];
  const made = element("li", "", [
    element("figure", "", [shown(photo), caption]),
    element("div", "beside", [strip([isolated(photo.label), " (its folder)"], data.typical[photo.label] ?? []), strip(isolated(suggested), like)]),
    options(`What to do with ${photo.name}`, values, (value) => { choice.action = value; made.dataset.action = value; }),
  ]);
  return made;
}

function pair(photos) {
  const both = photos.map((photo) => ({ photo, action: "keep", to: "", folder: null }));
  choices.push(...both);
  const values = [["keep", "Keep both", true], ...photos.map((photo, at) => [String(at), ["Drop from ", isolated(photo.label)], photo.path !== null])];
  const figures = photos.map((photo) => element("figure", "", [shown(photo), element("figcaption", "", [isolated(photo.label), element("span", "file", isolated(photo.name))])]));
  const made = element("li", "", [
    element("div", "both", figures),
    options(`What to do with ${photos[0].name} and ${photos[1].name}`, values, (value) => {
      both.forEach((choice, at) => { choice.action = value === String(at) ? "drop" : "keep"; });
      made.dataset.action = value;
    }),
  ]);
  return made;
}

/** A cell of CSV. */
const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
/** A word of a shell. */
const word = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const decided = () => choices.filter(({ action }) => action !== "keep");
const moves = () => choices.filter(({ action }) => action === "move");
const csv = () => [["class", "photo", "action", "to"], ...decided().map(({ photo, action, to }) => [photo.label, photo.path, action, action === "move" ? to : ""])].map((row) => `${row.map(cell).join(",")}\n`).join("");
const script = () => ["#!/bin/sh", "# Moves photos to the folder of the class that they look like; a file that is there stays.", ...moves().map(({ photo, folder: to }) => `mv -n -- ${word(photo.path)} ${word(`${to}/`)}`), ""].join("\n");

function drawCount() {
  const [all, moved] = [decided().length, moves().length];
  const dropped = all - moved;
  const parts = [[moved, "to move"], [dropped, "to drop"]].filter(([count]) => count).map(([count, text]) => `${number.format(count)} ${text}`);
  $("count").textContent = parts.length ? parts.join(", ") : "Every photo is kept";
  $("save").disabled = all === 0;
  $("script").disabled = moved === 0;
  $("command").hidden = all === 0 || data.command === "";
}

function download(text, name, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
$("among").textContent = `${number.format(data.total)} of ${plural(data.judged, "photo")} may lie in the wrong folder. No file is changed by this page.`;
$("more").textContent = data.total > data.issues.length ? `and ${number.format(data.total - data.issues.length)} more` : "";
for (const [id, entries, draw] of [["issues", data.issues, issue], ["twice", data.twice, pair], ["copies", data.copies, pair]]) {
  $(`${id}-section`).hidden = entries.length === 0;
  $(id).append(...entries.map(draw));
}
$("command").textContent = data.command;
$("save").addEventListener("click", () => {
  download(csv(), data.list, "text/csv");
  saved = csv();
  $("count").textContent = `Saved as ${data.list}.${data.command ? " Then run:" : ""}`;
});
$("script").addEventListener("click", () => {
  download(script(), SCRIPT, "text/x-shellscript");
  $("count").textContent = `Saved as ${SCRIPT}. Read it, then run: sh ${SCRIPT}`;
});
addEventListener("beforeunload", (event) => { if (decided().length > 0 && csv() !== saved) event.preventDefault(); });
drawCount();
