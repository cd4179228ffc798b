// Small helpers. What comes from rows is only ever set as text, never as HTML.

export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

export const show = (place, ...children) => place.replaceChildren(...children.flat());

export const counted = (number) => number.toLocaleString("en");

const IDS = /^\["?[0-9a-f]{32}|^[0-9a-f]{32}$/;

// A value as text; vectors are counted, and with `short` ids are cut to what a command takes.
export function shown(value, { short = false } = {}) {
  if (value === null || value === undefined) return el("span", { class: "quiet" }, "—");
  if (typeof value === "number" && !Number.isInteger(value)) return String(Number(value.toPrecision(6)));
  const text = String(value);
  const numbers = /^\[-?[\d.]+(e-?\d+)?, /.test(text) ? text.split(",").length : 0;
  if (numbers > 12) return `${text.split(",", 3).join(",")}, … (${numbers} numbers)`;
  if (short && IDS.test(text)) return el("code", { title: text }, [...text.matchAll(/[0-9a-f]{32}/g)].map(([id]) => id.slice(0, 8)).join(" "));
  return text;
}

// Prose is what may offend, and what a veil covers: names, ids and figures stay readable.
export const isProse = (name, value) =>
  typeof value === "string" && !["row_id", "media_id", "parents", "rule", "winner"].includes(name) && /\s/.test(value);

export function announce(text) {
  document.getElementById("said").textContent = text;
}
