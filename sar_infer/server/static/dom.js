// What the modules of the page share: its elements, its formats, and its voice. Text only ever becomes textContent.

/** Where the classes are: on the server, or in this page (`examples/browser`). */
export const place = document.documentElement.dataset.place ?? "server";
export const $ = (id) => document.getElementById(id);
export const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
export const number = new Intl.NumberFormat("en");
export const plural = (count) => (count === 1 ? "1 photo" : `${number.format(count)} photos`);

/** Names that the server takes for the same class have the same spelling. */
export const spelling = (name) => name.trim().split(/\s+/).join(" ").toLowerCase();

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

/** A button; `label` says in full what its text says in short. */
export function button(className, text, label, act) {
  const made = element("button", className, text);
  made.type = "button";
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

export function show(id, text) {
  $(id).textContent = text;
  $(id).hidden = text === "";
}

/** Mark an item whose name waits for the server; `doing` says what for, in short. */
export function mark(item, pending, doing = "") {
  item.classList.toggle("pending", pending);
  item.dataset.doing = doing;
}

/** Tell a screen reader. */
export function say(text) {
  $("status").textContent = text;
}

export const carriesFiles = (event) => event.dataTransfer?.types.includes("Files") === true;

/** Draw a list anew where what it shows has changed, so that focus stays where nothing has. */
export function redraw(list, shown, make) {
  const drawn = JSON.stringify(shown);
  if (list.dataset.drawn === drawn) return;
  list.dataset.drawn = drawn;
  list.replaceChildren(...make());
}
