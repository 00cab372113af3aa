// What the pages share: making elements, and asking the gateway.
"use strict";

/** An element with attributes, and children that are elements or texts. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

class GatewayError extends Error {
  constructor(status, message, retryAfterS) {
    super(message);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

/** The JSON of an answer. Throws GatewayError; status 0 where nobody answered. */
async function ask(path, body, signal) {
  const options = body === undefined ? { signal } : {
    method: "POST", signal, headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  };
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new GatewayError(0, "The gateway does not answer.", 2);
  }
  const retryAfterS = Number(response.headers.get("retry-after")) || null;
  let content = null;
  try {
    content = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
  }
  if (!response.ok) throw new GatewayError(response.status, content?.error?.message ?? response.statusText, retryAfterS);
  return content;
}

/** A number between 0 and 1 as a percentage. */
function percent(number) {
  return `${Math.round(100 * number)}%`;
}

/** A picture of a product, or a box that says there is none. */
function pictureOf(product, label) {
  if (!product.has_picture) return make("div", { class: "none" }, "no picture");
  return make("img", { src: `/pictures/${encodeURIComponent(product.id)}`, alt: label, loading: "lazy", decoding: "async" });
}
