/**
 * How figures and moments are written.
 * @module
 */

/**
 * @param {number | null | undefined} seconds
 * @returns {string}
 */
export function duration(seconds) {
  if (typeof seconds !== "number" || !Number.isFinite(seconds)) return "";
  if (seconds < 0.0995) return `${(seconds * 1000).toFixed(seconds < 0.00995 ? 1 : 0)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(seconds < 9.95 ? 2 : 1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/**
 * @param {{input_tokens?: number | null, output_tokens?: number | null} | null | undefined} usage
 * @returns {string}
 */
export function tokens(usage) {
  const { input_tokens: input, output_tokens: output } = usage ?? {};
  if (typeof input !== "number" && typeof output !== "number") return "";
  return `${count(input)} → ${count(output)}`;
}

/**
 * @param {number | null | undefined} value
 * @returns {string}
 */
export function count(value) {
  return typeof value === "number" ? value.toLocaleString("en") : "?";
}

/**
 * When something was, from seconds since 1970.
 * @param {number | null | undefined} seconds
 * @returns {string}
 */
export function moment(seconds) {
  if (typeof seconds !== "number") return "";
  const then = new Date(seconds * 1000);
  const today = new Date().toDateString() === then.toDateString();
  return today
    ? then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : then.toLocaleDateString([], { day: "numeric", month: "short" });
}

/**
 * An event's moment in seconds, which comes as a number or as ISO 8601.
 * @param {unknown} value
 * @returns {number}
 */
export function seconds(value) {
  return typeof value === "number" ? value : Date.parse(String(value)) / 1000;
}

/**
 * JSON for people, where a text is JSON; else the text.
 * @param {string} text
 * @returns {string}
 */
export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/**
 * Arguments in a line: `path: "README.md"`.
 * @param {string} text JSON
 * @returns {string}
 */
export function brief(text) {
  try {
    const value = JSON.parse(text);
    if (value === null || typeof value !== "object") return text;
    return Object.entries(value)
      .map(([name, item]) => `${name}: ${JSON.stringify(item)}`)
      .join(", ");
  } catch {
    return text;
  }
}

/**
 * A text as records hold it: a long one is cut or left out, and one that is no Unicode is marked.
 * @param {unknown} value
 * @returns {string}
 */
export function textOf(value) {
  if (typeof value === "string") return value;
  if (value === null || typeof value !== "object") return "";
  if ("$truncated" in value) return String(value.$truncated);
  if ("$surrogates" in value) return String(value.$surrogates);
  return "(too long to be shown here)";
}
