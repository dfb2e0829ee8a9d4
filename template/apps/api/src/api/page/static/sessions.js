/**
 * The list of conversations.
 * @module
 */

import { el } from "./dom.js";
import { moment } from "./format.js";

/**
 * @typedef {{id: string, title: string, created_at: number | null, updated_at: number | null,
 *   messages: number, running: boolean, approvals: number}} Session
 */

/**
 * How a conversation is called.
 * @param {Session | null | undefined} session
 * @returns {string}
 */
export function titleOf(session) {
  return session?.title || "New conversation";
}

/** Shows the list. */
export class SessionList {
  /** @type {Session[]} */
  #sessions = [];
  #next = /** @type {string | null} */ (null);
  #pages = 1;
  #asked = 0;
  #chosen = "";
  #more = el("button", { type: "button", class: "quiet", text: "Show older ones", click: () => this.#showMore() });

  /**
   * @param {HTMLElement} list
   * @param {HTMLElement} note what is said instead of, or below, the list
   * @param {import("./http.js").Api} api
   * @param {(id: string) => void} open
   */
  constructor(list, note, api, open) {
    this.list = list;
    this.note = note;
    this.api = api;
    this.open = open;
  }

  /**
   * Mark the one that is shown.
   * @param {string} id
   */
  choose(id) {
    this.#chosen = id;
    this.#draw();
  }

  /**
   * @param {string} id
   * @returns {Session | undefined}
   */
  find(id) {
    return this.#sessions.find((each) => each.id === id);
  }

  /** Ask the server for the list; of several calls at once, the last one's answer is shown. */
  async refresh() {
    const turn = ++this.#asked;
    /** @type {Session[]} */
    const sessions = [];
    let next = /** @type {string | null} */ (null);
    for (let page = 0; page < this.#pages && (page === 0 || next !== null); page += 1) {
      const after = next === null ? "" : `&after=${encodeURIComponent(next)}`;
      const answer = await this.api.call("GET", `sessions?limit=50${after}`);
      sessions.push(...answer.sessions);
      next = answer.next;
    }
    if (turn !== this.#asked) return;
    this.#sessions = sessions;
    this.#next = next;
    this.#draw();
  }

  async #showMore() {
    this.#pages += 1;
    await this.refresh();
  }

  #draw() {
    const focused = this.list.contains(document.activeElement) ? document.activeElement?.getAttribute("data-id") : null;
    this.list.replaceChildren(...this.#sessions.map((each) => el("li", {}, this.#item(each))));
    const parts = [this.#sessions.length ? null : el("p", { text: "None yet. What you say first begins one." }), this.#next ? this.#more : null];
    this.note.replaceChildren(...parts.filter((each) => each !== null));
    if (focused) /** @type {HTMLElement | null} */ (this.list.querySelector(`[data-id="${CSS.escape(focused)}"]`))?.focus();
  }

  /** @param {Session} session */
  #item(session) {
    const state = session.approvals
      ? el("span", { class: "badge waits", text: "waits for you" })
      : session.running && el("span", { class: "badge runs", text: "running" });
    const about = [moment(session.updated_at), session.messages === 1 ? "1 message" : `${session.messages} messages`];
    return el(
      "button",
      {
        type: "button",
        class: "session",
        "data-id": session.id,
        "aria-current": session.id === this.#chosen ? "true" : null,
        click: () => this.open(session.id),
      },
      el("span", { class: "session-title", text: titleOf(session) }),
      el("span", { class: "session-about" }, el("span", { text: about.filter(Boolean).join(" · ") }), state),
    );
  }
}
