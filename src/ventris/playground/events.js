"use strict";
// Talking to the server: JSON, and server-sent events as they come.

class ServerError extends Error {
  constructor(status, error) {
    super(error?.message ?? `the server answered with status ${status}`);
    this.status = status;
    this.param = error?.param ?? null;
  }
}

async function ask(path, key, body = null, signal = null) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  const options = { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body) };
  const response = await fetch(path, options);
  if (!response.ok) {
    const told = await response.json().catch(() => null);
    throw new ServerError(response.status, told?.error);
  }
  return response;
}

// Values of a stream's events, until [DONE]. A stream that ends without it was cut off.
async function* readEvents(response) {
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  let waiting = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("the connection broke off before the answer was finished");
    waiting += decoder.decode(value, { stream: true });
    const blocks = waiting.split("\n\n");
    waiting = blocks.pop();
    for (const block of blocks) {
      const data = block.startsWith("data: ") ? block.slice(6) : "";
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
  }
}
