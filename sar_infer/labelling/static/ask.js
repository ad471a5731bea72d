// What the page asks its server.

/** The answer to a GET, or to a POST with a body; throws an error whose message people can read. */
export async function asked(path, body) {
  const settings = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, settings);
  } catch {
    throw new Error("sar-label does not run any more. Confirmed answers are stored; start it again with the same command.");
  }
  const type = response.headers.get("Content-Type") ?? "";
  const content = type.startsWith("application/json") ? await response.json() : { detail: await response.text() };
  if (!response.ok) throw new Error(content.detail);
  return content;
}
