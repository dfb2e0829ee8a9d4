/**
 * Markdown, which the server takes apart: what comes back becomes nodes by an allow-list.
 * @module
 */

import { byId, el, icon } from "./dom.js";

/** @typedef {string | {tag: string, children: MarkdownNode[], href?: string, start?: number, align?: string, language?: string}} MarkdownNode */

const LONGEST = 16 * 1024;
const ENOUGH = 4 * 1024;
const PAUSE = 150;
const PLAIN = new Set([
  ...["p", "h3", "h4", "h5", "h6", "blockquote", "ul", "li", "hr", "br", "strong", "em", "s", "code"],
  ...["thead", "tbody", "tr"],
]);
const CELLS = new Set(["th", "td"]);
const ALIGNMENTS = new Set(["left", "center", "right"]);
const SCHEMES = new Set(["http:", "https:", "mailto:"]);

/**
 * @param {MarkdownNode[]} nodes
 * @returns {Node[]}
 */
export function build(nodes) {
  return nodes.map((node) => (typeof node === "string" ? document.createTextNode(node) : element(node)));
}

/**
 * @param {Exclude<MarkdownNode, string>} node
 * @returns {Node}
 */
function element(node) {
  const children = build(node.children);
  if (PLAIN.has(node.tag)) return el(node.tag, {}, ...children);
  if (CELLS.has(node.tag)) {
    return el(node.tag, { class: ALIGNMENTS.has(node.align ?? "") ? node.align : null }, ...children);
  }
  switch (node.tag) {
    case "ol":
      return el("ol", { start: Number.isInteger(node.start) ? node.start : null }, ...children);
    case "table": // a wide one scrolls for itself, by keyboard too
      return el("div", { class: "table", tabindex: 0, role: "region", "aria-label": "Table" }, el("table", {}, ...children));
    case "a":
      return link(node.href ?? "", children);
    case "pre":
      return code(node.language ?? "", children);
    default:
      return el("span", {}, ...children);
  }
}

/**
 * @param {string} address
 * @param {Node[]} children
 */
function link(address, children) {
  const known = URL.canParse(address) && SCHEMES.has(new URL(address).protocol);
  if (!known) return el("span", {}, ...children);
  return el("a", { href: address, title: address, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children);
}

/**
 * @param {string} language
 * @param {Node[]} children
 */
function code(language, children) {
  const block = el("code", {}, ...children);
  const copy = el("button", { type: "button", class: "quiet copy", click: () => copied(copy, block) }, icon("copy"), el("span", { text: "Copy" }));
  return el(
    "div",
    { class: "code" },
    el("div", { class: "code-head" }, el("span", { text: language || "code" }), copy),
    el("pre", { tabindex: 0 }, block),
  );
}

/**
 * @param {HTMLElement} button
 * @param {HTMLElement} block
 */
async function copied(button, block) {
  const label = button.querySelector("span");
  try {
    await navigator.clipboard.writeText(block.textContent ?? "");
    if (label) label.textContent = "Copied";
  } catch {
    getSelection()?.selectAllChildren(block);
    if (label) label.textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => {
    if (label) label.textContent = "Copy";
  }, 2000);
}

/**
 * Cut a text where nothing is torn: at blank lines outside fences. A longer text that begins with
 * the same words is cut at the same places, so that what is rendered stays.
 * @param {string} text
 * @returns {string[]}
 */
export function sections(text) {
  const cuts = [];
  let begin = 0;
  let fence = "";
  for (const match of text.matchAll(/^ {0,3}(`{3,}|~{3,})[^\n]*$|^[ \t]*\n/gm)) {
    const mark = match[1];
    if (mark !== undefined) {
      if (fence === "") fence = mark;
      else if (mark.startsWith(fence)) fence = "";
    } else if (fence === "" && match.index - begin > ENOUGH) {
      cuts.push(text.slice(begin, match.index));
      begin = match.index;
    }
  }
  return [...cuts, text.slice(begin)];
}

/** Sections that nobody has seen yet; a long history is rendered as far as somebody looks. */
const unseen = new WeakMap();
const seen = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      target.classList.remove("unseen");
      unseen.get(target)?.();
    }
  },
  { root: byId("messages"), rootMargin: "400px" },
);

/** A section of a text: plain at first, rendered as it settles. */
class Section {
  text = "";
  #seen = false;
  #rendered = "";
  #busy = false;
  /** @type {string[]} */
  #shown = [];
  #tail = el("span", { class: "plain" });

  /** @param {import("./http.js").Api} api */
  constructor(api) {
    this.api = api;
    this.element = el("div", { class: "section unseen" }, this.#tail);
    unseen.set(this.element, () => {
      this.#seen = true;
      this.show(this.text);
    });
    seen.observe(this.element);
  }

  /** @param {string} text */
  show(text) {
    this.text = text;
    this.#tail.textContent = text.slice(this.#rendered.length);
    if (this.#seen && !this.#busy && text !== this.#rendered) this.#settle();
  }

  /** Render until what is rendered is what there is. */
  async #settle() {
    this.#busy = true;
    while (this.#rendered !== this.text && this.text.length <= LONGEST) {
      const text = this.text;
      try {
        const { nodes } = await this.api.call("POST", "markdown", { text });
        this.#replace(text, nodes);
      } catch {
        break; // it stays plain
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
    this.#busy = false;
  }

  /**
   * Show new nodes in place of old ones; those that stay the same stay, with what is selected there.
   * @param {string} text
   * @param {MarkdownNode[]} nodes
   */
  #replace(text, nodes) {
    const shown = nodes.map((node) => JSON.stringify(node));
    const same = shown.findIndex((node, index) => node !== this.#shown[index]);
    const kept = same < 0 ? shown.length : same;
    this.#tail.remove();
    [...this.element.childNodes].slice(kept).forEach((node) => node.remove());
    this.element.append(...build(nodes.slice(kept)));
    this.#shown = shown;
    this.#rendered = text;
    this.#tail.textContent = this.text.slice(text.length);
    // What follows goes on where the last words stand.
    let place = this.element;
    while (place.lastElementChild?.matches("p, li, ul, ol, blockquote, h3, h4, h5, h6")) {
      place = /** @type {HTMLElement} */ (place.lastElementChild);
    }
    place.append(this.#tail);
  }
}

/** A text that may still grow. */
export class MarkdownText {
  #text = "";
  /** @type {Section[]} */
  #sections = [];

  /** @param {import("./http.js").Api} api */
  constructor(api) {
    this.api = api;
    this.element = el("div", { class: "markdown" });
  }

  get text() {
    return this.#text;
  }

  /** @param {string} text */
  append(text) {
    this.set(this.#text + text);
  }

  /** @param {string} text */
  set(text) {
    if (text === this.#text) return;
    if (!text.startsWith(this.#text)) {
      this.#sections = [];
      this.element.replaceChildren();
    }
    this.#text = text;
    sections(text).forEach((part, index) => {
      if (this.#sections.length <= index) {
        const section = new Section(this.api);
        this.#sections.push(section);
        this.element.append(section.element);
      }
      this.#sections[index].show(part);
    });
  }
}
