// What the pages share: their data, their elements, their numbers. Text only ever becomes textContent.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const percent = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 0 });
const finePercent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const number = new Intl.NumberFormat("en");

/** A new element; `content` is text, an element, or several of them. */
function element(tag, className = "", content = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...[content].flat());
  return made;
}

/** The name of a class or file, which a reader's writing direction must not reorder. */
const isolated = (text) => element("bdi", "name", text);

const plural = (count, one, many = `${one}s`) => `${number.format(count)} ${count === 1 ? one : many}`;

/** A picture; `source` is a data URI. */
function picture(source, alt) {
  const made = element("img");
  made.loading = "lazy";
  made.alt = alt;
  made.src = source;
  return made;
}

$("title").textContent = data.title;
$("facts").parentElement.hidden = !data.facts;
for (const [key, value] of Object.entries(data.facts ?? {})) {
  $("facts").append(element("div", "", [element("dt", "", key), element("dd", "", isolated(value))]));
}
