// Calls of the manager that this page came from.

/** What the manager refused, or that it did not answer. */
export class Problem extends Error {
  constructor(status, title, detail) {
    super(detail ? `${title}: ${detail}` : title);
    this.status = status;
  }
}

async function problemOf(response) {
  try {
    const { title, detail } = await response.json();
    return new Problem(response.status, title, detail);
  } catch {
    return new Problem(response.status, `The manager answered ${response.status}`);
  }
}

export const peerPath = (id) => `/v1/peers/${encodeURIComponent(id)}`;

/** Sends a request and gives what it answers, parsed; a `version` is a condition on the record. */
export async function call(method, path, { body, version, signal } = {}) {
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (version !== undefined) headers["if-match"] = `"${version}"`;
  const response = await fetch(path, {
    method, headers, signal, cache: "no-store",
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!response.ok) throw await problemOf(response);
  return response.status === 204 ? null : response.json();
}

/** Gives the lines of an answer as they come, parsed, in groups as they were read. */
export async function* lines(path, signal) {
  const headers = { accept: "application/x-ndjson" };
  const response = await fetch(path, { headers, signal, cache: "no-store" });
  if (!response.ok) throw await problemOf(response);
  yield { revision: response.headers.get("udht-revision"), values: [] };
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    const values = parts.filter((part) => part !== "").map((part) => JSON.parse(part));
    if (values.length > 0) yield { values };
  }
}
