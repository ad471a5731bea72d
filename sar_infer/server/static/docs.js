// Renders openapi.json. Everything from it becomes textContent; `ref` links are followed a few levels deep.

import { element, jsonExample, resolve, typeName } from "./schema.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const DEEPEST = 4;
const PROBLEM = "application/problem+json";
const PROBLEMS_NOTE = `Errors come as \`${PROBLEM}\`; \`code\` stays the same, \`detail\` is for people.`;
const $ = (id) => document.getElementById(id);
let spec = {};

async function start() {
  try {
    const answer = await fetch("openapi.json");
    if (!answer.ok) throw new Error(`the server answered with status ${answer.status}`);
    spec = await answer.json();
    render();
  } catch (error) {
    $("problem").textContent = `The description of the API cannot be read: ${error.message}.`;
    $("problem").hidden = false;
  }
}

function render() {
  const { title = "API", version = "", description = "" } = spec.info ?? {};
  document.title = `API – ${title}`;
  $("title").textContent = `${title} API`;
  $("version").textContent = version && `version ${version}`;
  $("about").append(...paragraphs(description));
  for (const [tag, routes] of groups()) {
    const group = element("section", "group");
    const about = spec.tags?.find((candidate) => candidate.name === tag)?.description;
    group.append(element("h2", "", heading(tag)), ...(about ? [rich("p", "text note", about)] : []), ...routes.map(route));
    $("routes").append(group);
    $("contents").append(element("h2", "", heading(tag)), ...routes.map(link));
  }
  openTarget();
  addEventListener("hashchange", openTarget);
}

/** Routes by their first tag, in the order of the document. */
function groups() {
  const found = new Map();
  for (const [path, item] of Object.entries(spec.paths ?? {})) {
    for (const method of METHODS.filter((name) => item[name])) {
      const operation = item[method];
      const parameters = [...(item.parameters ?? []), ...(operation.parameters ?? [])].map((given) => resolve(spec, given));
      const tag = operation.tags?.[0] ?? "other";
      const id = `${method}${path}`.replace(/[^A-Za-z0-9]+/g, "-").replace(/-$/, "");
      found.set(tag, [...(found.get(tag) ?? []), { method, path, operation, parameters, id }]);
    }
  }
  return found;
}

const heading = (tag) => tag.charAt(0).toUpperCase() + tag.slice(1).replaceAll("-", " ");

/** A path that may break before its slashes. */
function pathText(className, path) {
  const made = element("span", className);
  path.split(/(?=\/)/).forEach((part) => made.append(element("wbr"), part));
  return made;
}

function link({ method, path, id }) {
  const made = element("a");
  made.href = `#${id}`;
  made.append(element("span", `method ${method}`, method.toUpperCase()), pathText("", path));
  return made;
}

function route(given) {
  const { method, path, operation, id } = given;
  const made = Object.assign(element("details", "route"), { id });
  const summary = element("summary");
  summary.append(element("span", `method ${method}`, method.toUpperCase()), pathText("path", path),
    rich("span", "summary", inBrief(operation)));
  made.append(summary);
  made.addEventListener("toggle", () => { if (made.open && made.children.length === 1) made.append(body(given)); });
  return made;
}

/** FastAPI makes a summary from a function's name where there is none; the description's first sentence says more. */
function inBrief({ summary = "", description = "", operationId = "" }) {
  const made = operationId.startsWith(summary.toLowerCase().replaceAll(" ", "_"));
  return made && description ? description.split(/(?<=\.)\s|\n\n/)[0].replaceAll("\n", " ").replace(/\.$/, "") : summary;
}

function body(given) {
  const { operation, parameters } = given;
  const made = element("div", "body");
  const content = resolve(spec, operation.requestBody ?? {}).content ?? {};
  const needsKey = (operation.security ?? spec.security ?? []).some((entry) => Object.keys(entry).length > 0);
  made.append(...paragraphs(operation.description));
  if (needsKey) made.append(element("p", "note key-note", "Needs the API key where the server has one."));
  if (parameters.length > 0) made.append(element("h3", "", "Parameters"), parameterList(parameters));
  if (Object.keys(content).length > 0) {
    made.append(element("h3", "", "Request body"));
    for (const [types, media] of alike(content)) made.append(...mediaType(types, media));
  }
  made.append(element("h3", "", "Answers"));
  for (const [status, answer] of Object.entries(operation.responses ?? {})) made.append(answerRow(status, resolve(spec, answer)));
  if (JSON.stringify(operation.responses ?? {}).includes(PROBLEM)) made.append(rich("p", "note", PROBLEMS_NOTE));
  made.append(element("h3", "", "From a shell"));
  const bodies = alike(content);
  for (const [types, media] of bodies.length > 0 ? bodies : [[[null], null]]) {
    if (bodies.length > 1) made.append(element("h4", "", types.join(", ")));
    made.append(code(curl(given, types[0], media, needsKey), true));
  }
  return made;
}

function parameterList(parameters) {
  const list = element("dl", "fields");
  for (const parameter of parameters) {
    const schema = resolve(spec, parameter.schema ?? {});
    list.append(field(parameter.name, schema, parameter.required, parameter.description, `in ${parameter.in}`));
  }
  return list;
}

/** Content types with the same description, together. */
function alike(content) {
  const found = new Map();
  for (const [type, media] of Object.entries(content)) {
    const key = JSON.stringify(media);
    found.set(key, [[...(found.get(key)?.[0] ?? []), type], media]);
  }
  return [...found.values()];
}

function mediaType(types, media) {
  const schema = resolve(spec, media.schema ?? {});
  const title = element("h4");
  title.append(element("code", "", types.join(", ")));
  const parts = [title, ...fields(schema, 0)];
  if (parts.length === 1) parts.push(element("p", "note", typeName(spec, schema)));
  if (types[0].endsWith("json")) parts.push(code(JSON.stringify(jsonExample(spec, media), null, 2), false));
  return parts;
}

function answerRow(status, answer) {
  const row = element("div", "answer");
  const detail = element("div");
  detail.append(rich("span", "", answer.description ?? ""));
  for (const [type, media] of Object.entries(answer.content ?? {})) {
    if (type === PROBLEM) continue; // they are all alike
    const parts = fields(resolve(spec, media.schema ?? {}), 0);
    if (parts.length === 0) { detail.append(element("span", "note", type)); continue; }
    const fold = element("details", "fold");
    fold.append(element("summary", "", `${type}: fields and an example`), ...parts);
    if (type.endsWith("json")) fold.append(code(JSON.stringify(jsonExample(spec, media), null, 2), false));
    detail.append(fold);
  }
  row.append(element("b", "", status), detail);
  return row;
}

/** A definition list of an object's properties; nothing for other types. */
function fields(schema, depth) {
  const objects = [schema, schema.items, ...(schema.anyOf ?? []), ...(schema.oneOf ?? [])].filter(Boolean).map((part) => resolve(spec, part));
  const described = objects.flatMap((part) => (part.properties ? [part] : part.items ? [resolve(spec, part.items)] : [])).find((part) => part.properties);
  if (described === undefined || depth >= DEEPEST) return [];
  const list = element("dl", "fields");
  for (const [name, given] of Object.entries(described.properties)) {
    const property = resolve(spec, given);
    const row = field(name, property, described.required?.includes(name), given.description ?? property.description);
    row.append(...fields(property, depth + 1));
    list.append(row);
  }
  return [list];
}

function field(name, schema, required, description, place = "") {
  const row = element("div");
  const term = element("dt");
  term.append(element("code", "", name));
  if (required) term.append(element("span", "must", " required"));
  const kind = [typeName(spec, schema), place, [undefined, null].includes(schema.default) || schema.default.length === 0 ? "" : `default ${JSON.stringify(schema.default)}`];
  const detail = element("dd");
  detail.append(element("span", "type", kind.filter(Boolean).join(", ")));
  if (description ?? schema.description) detail.append(element("br"), rich("span", "", description ?? schema.description));
  row.append(term, detail);
  return row;
}

// -------------------------------------------------------------------------------------------------------- small parts

/** Blank lines part paragraphs; other line breaks are where the source was full. */
function paragraphs(text = "") {
  return text.split(/\n{2,}/).filter((part) => part.trim() !== "").map((part) => rich("p", "text", part));
}

/** Text in which `code` between backticks is set as such. */
function rich(tag, className, text) {
  const made = element(tag, className);
  text.split(/``?([^`]+)``?/).forEach((part, index) => made.append(index % 2 ? element("code", "", part) : part));
  return made;
}

function code(text, copyable) {
  const box = element("div", copyable ? "code copyable" : "code");
  const block = element("pre");
  block.append(element("code", "", text));
  box.append(block);
  if (copyable) box.append(copyButton(block));
  return box;
}

function copyButton(block) {
  const button = element("button", "copy", "Copy");
  button.type = "button";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(block.textContent);
      button.textContent = "Copied";
    } catch { // only pages from localhost or over TLS may write to the clipboard
      getSelection().selectAllChildren(block);
      button.textContent = "Selected";
    }
    $("status").textContent = button.textContent;
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return button;
}

const quoted = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;

function curl({ method, path, parameters }, type, media, needsKey) {
  const query = parameters.filter((parameter) => parameter.in === "query" && parameter.required).map((parameter) => `${parameter.name}=…`);
  const filled = path.replace(/\{([^}]+)\}/g, (_, name) => name.toUpperCase());
  const base = new URL(".", location.href).href.replace(/\/$/, "");
  const verb = method === "get" ? "" : `-X ${method.toUpperCase()} `;
  const parts = [`curl ${verb}${quoted(`${base}${filled}${query.length > 0 ? `?${query.join("&")}` : ""}`)}`];
  if (needsKey) parts.push('-H "Authorization: Bearer $SAR_API_KEY"');
  if (type === "multipart/form-data") {
    for (const [name, given] of Object.entries(resolve(spec, media.schema ?? {}).properties ?? {})) {
      const property = resolve(spec, given);
      const binary = [property, resolve(spec, property.items ?? {})].some((part) => part.format === "binary" || part.contentMediaType);
      if (binary) parts.push(`-F ${name}=@photo.jpg`);
    }
  } else if (type?.endsWith("json")) {
    parts.push(`-H ${quoted(`Content-Type: ${type}`)}`, `-d ${quoted(JSON.stringify(jsonExample(spec, media)))}`);
  } else if (type) {
    parts.push(`-H ${quoted(`Content-Type: ${type === "image/*" ? "image/jpeg" : type}`)}`, "--data-binary @photo.jpg");
  }
  return parts.join(" \\\n  ");
}

function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  if (!(target instanceof HTMLDetailsElement)) return;
  target.open = true;
  target.scrollIntoView();
  target.firstChild.focus({ preventScroll: true });
}

start();
