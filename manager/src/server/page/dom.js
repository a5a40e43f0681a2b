// Elements and texts. Whatever comes from a record is set as text, never as markup.

/** A new element with attributes (`class`, `data-x`, ...) or, where they are functions, listeners. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** How long ago a time in RFC 3339 was, in one unit. */
export function ago(time, now = Date.now()) {
  const seconds = Math.round((now - Date.parse(time)) / 1000);
  if (Number.isNaN(seconds)) return "";
  if (seconds < 0) return seconds > -2 ? "now" : `in ${span(-seconds)}`;
  return seconds < 2 ? "now" : `${span(seconds)} ago`;
}

function span(seconds) {
  for (const [unit, length] of [["d", 86_400], ["h", 3_600], ["min", 60]]) {
    if (seconds >= 2 * length) return `${Math.floor(seconds / length)} ${unit}`;
  }
  return `${seconds} s`;
}

/** The same as an element that tells the whole time when it is pointed at. */
export function when(time) {
  if (!time) return make("span", { class: "faint" }, "–");
  return make("time", { datetime: time, title: time }, ago(time));
}

/** Numbers with their thousands apart. */
export const count = (number) => Number(number).toLocaleString("en");

export const plural = (number, one, more = `${one}s`) => `${count(number)} ${Number(number) === 1 ? one : more}`;

export const shortId = (id) => (id && id.length > 12 ? `${id.slice(0, 8)}…` : id);
