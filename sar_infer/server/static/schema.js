// JSON Schema as OpenAPI 3.1 uses it: references, names of types, examples. Shared helpers of the page /docs.

const DEEPEST = 6;

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

/** Follow `$ref`s within the document; what cannot be found is an empty schema. */
export function resolve(spec, given) {
  let found = given;
  for (let step = 0; step < DEEPEST && typeof found?.$ref === "string"; step += 1) {
    const { $ref, ...beside } = found;
    const keys = $ref.replace(/^#\//, "").split("/").map((key) => key.replaceAll("~1", "/").replaceAll("~0", "~"));
    found = { ...keys.reduce((node, key) => node?.[key], spec), ...beside };
  }
  return found?.allOf?.length === 1 ? { ...resolve(spec, found.allOf[0]), ...found } : found ?? {};
}

/** A type in a few words, such as “array of string” or “"bank" or "only"”. */
export function typeName(spec, given, depth = 0) {
  const schema = resolve(spec, given);
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return [...new Set(choices.map((choice) => typeName(spec, choice, depth)))].join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  const type = Array.isArray(schema.type) ? schema.type.join(" or ") : schema.type ?? "any";
  if (type === "array" && depth < DEEPEST) return `array of ${typeName(spec, schema.items ?? {}, depth + 1)}${bounds(schema)}`;
  if (type === "object" && schema.additionalProperties && depth < DEEPEST && !schema.properties) {
    return `object of ${typeName(spec, schema.additionalProperties, depth + 1)}`;
  }
  if (schema.format === "binary" || schema.contentMediaType) return "file";
  return `${type}${schema.format ? ` (${schema.format})` : ""}${bounds(schema)}`;
}

function bounds(schema) {
  const low = schema.minimum ?? schema.exclusiveMinimum ?? schema.minLength ?? schema.minItems;
  const high = schema.maximum ?? schema.exclusiveMaximum ?? schema.maxLength ?? schema.maxItems;
  if (low === undefined && high === undefined) return "";
  const unit = schema.type === "string" ? " characters" : "";
  if (high === undefined) return low === 0 ? "" : `, at least ${low}${unit}`;
  return low === undefined ? `, at most ${high}${unit}` : `, ${low} to ${high}${unit}`;
}

/** The example that the document gives for a media type, else one made from its schema. */
export function jsonExample(spec, media) {
  if (media.example !== undefined) return media.example;
  const [first] = Object.values(media.examples ?? {});
  return first === undefined ? example(spec, media.schema ?? {}, 0) : resolve(spec, first).value;
}

function example(spec, given, depth) {
  const schema = resolve(spec, given);
  if (schema.examples?.length > 0) return schema.examples[0];
  for (const value of [schema.example, schema.default, schema.const, schema.enum?.[0]]) {
    if (value !== undefined && value !== null) return value;
  }
  const choice = (schema.anyOf ?? schema.oneOf ?? []).find((option) => option.type !== "null");
  if (choice) return depth < DEEPEST ? example(spec, choice, depth + 1) : null;
  if (schema.properties) return depth < DEEPEST ? objectExample(spec, schema, depth) : {};
  if (schema.type === "array") return schema.items && depth < DEEPEST ? [example(spec, schema.items, depth + 1)] : [];
  return { integer: 0, number: 0, boolean: false, object: {}, null: null }[schema.type] ?? "string";
}

function objectExample(spec, schema, depth) {
  return Object.fromEntries(Object.entries(schema.properties).map(([name, property]) => [name, example(spec, property, depth + 1)]));
}
