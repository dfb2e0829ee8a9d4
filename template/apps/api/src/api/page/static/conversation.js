/**
 * A conversation: its stored history, then the turns that events tell of.
 * @module
 */

import { el } from "./dom.js";
import { seconds, textOf } from "./format.js";
import { TurnView } from "./turn.js";

/**
 * @typedef {object} LiveTurn
 * @property {TurnView} view
 * @property {string} id
 * @property {number} started
 * @property {number} saved how long the history was when the turn was first in it
 * @property {boolean} ended
 * @property {boolean} own whether it was asked for on this page
 * @property {boolean} headless whether its beginning is not known
 */

const TURN = "RunTurn";

/** Shows one session's conversation. */
export class Conversation {
  #history = el("div", { class: "history" });
  #live = el("div", { class: "live" });
  /** @type {any[]} */
  #messages = [];
  /** @type {LiveTurn[]} */
  #turns = [];
  #cut = -1;

  /**
   * @param {HTMLElement} root
   * @param {import("./turn.js").Surroundings} page
   * @param {{ended: (answer: string, status: string, own: boolean) => void, waits: (name: string) => void,
   *   changed: () => void, incomplete: () => void}} tell
   */
  constructor(root, page, tell) {
    this.page = page;
    this.tell = tell;
    root.replaceChildren(this.#history, this.#live);
  }

  /** The turn under way. */
  get running() {
    return this.#turns.find((each) => !each.ended) ?? null;
  }

  get empty() {
    return this.#messages.length === 0 && this.#turns.length === 0;
  }

  /** Calls that wait for a person. */
  get waiting() {
    return this.#turns.flatMap((each) => each.view.waiting);
  }

  /** Show nothing. */
  clear() {
    this.#turns = [];
    this.#live.replaceChildren();
    this.load([]);
  }

  /**
   * Show a history as it is stored; turns that events tell of stay, and aren't shown twice.
   * @param {any[]} messages
   */
  load(messages) {
    this.#messages = messages;
    this.#cut = -1;
    this.#draw();
  }

  /**
   * A turn runs whose beginning is no longer known.
   */
  goOn() {
    if (this.running === null) this.#begin("", "", 0).headless = true;
  }

  /**
   * Show a question that is being sent.
   * @param {string} text
   * @returns {LiveTurn}
   */
  expect(text) {
    const turn = this.#begin(text, "", 0);
    turn.own = true;
    return turn;
  }

  /**
   * It was taken.
   * @param {LiveTurn} turn
   * @param {string} id
   */
  accepted(turn, id) {
    if (turn.id === "" && this.#turns.some((each) => each.id === id)) this.rejected(turn);
    else turn.id = id;
  }

  /**
   * It was not taken.
   * @param {LiveTurn} turn
   */
  rejected(turn) {
    turn.view.element.remove();
    this.#turns = this.#turns.filter((each) => each !== turn);
    this.tell.changed();
  }

  /**
   * Show calls that wait, whose events are no longer known.
   * @param {{call_id: string, name: string, arguments: string, expires_at: number}[]} approvals
   */
  remind(approvals) {
    if (!this.running?.headless) return;
    const { view } = this.running;
    for (const { call_id: id, name, arguments: text, expires_at: expires } of approvals) {
      view.ask({ id, name, arguments: text }, expires);
    }
  }

  /**
   * Take an event of the bus.
   * @param {string} type
   * @param {any} event its record
   */
  take(type, event) {
    if (type === "CommandStartedEvent" && event.command.$type === TURN) return this.#started(event);
    if (type === "TurnEnded") return this.#ended(event);
    if (type === "ChatHistoryUpdatedEvent") return this.#updated(event.length);
    const turn = this.running;
    if (turn === null) return;
    turn.view.take(event);
    if (type === "ToolApprovalRequestedEvent") this.tell.waits(event.call.name);
  }

  /** @param {any} event */
  #started(event) {
    this.#turns.filter((each) => each.headless).forEach((each) => this.rejected(each));
    const { id } = event.command;
    const text = textOf(event.command.text);
    const known = this.#turns.find((each) => each.id === id || (each.id === "" && each.view.text === text));
    const turn = known ?? this.#begin(text, id, 0);
    turn.id = id;
    turn.started = seconds(event.timestamp);
  }

  /** @param {any} event */
  #ended(event) {
    const turn = this.running;
    if (turn === null) return;
    turn.ended = true;
    if (turn.headless) {
      this.rejected(turn);
      return this.tell.incomplete();
    }
    turn.view.end(event, turn.started ? seconds(event.timestamp) - turn.started : null);
    this.tell.changed();
    this.tell.ended(turn.view.answer, event.status, turn.own);
  }

  /** @param {number} length */
  #updated(length) {
    if (length === 0) {
      this.#turns.filter((each) => each.ended).forEach((each) => this.rejected(each));
      return this.load([]);
    }
    const turn = this.running;
    if (turn !== null && turn.saved === 0) {
      turn.saved = length;
      this.#draw();
    }
  }

  /**
   * @param {string} text
   * @param {string} id
   * @param {number} started
   */
  #begin(text, id, started) {
    const turn = { view: new TurnView(this.page, text), id, started, saved: 0, ended: false, own: false, headless: false };
    turn.view.begin();
    this.#turns.push(turn);
    this.#live.append(turn.view.element);
    this.tell.changed();
    return turn;
  }

  /** Draw the history up to the turns that are shown from their events. */
  #draw() {
    const stored = this.#turns.filter((each) => each.saved > 0 && each.saved <= this.#messages.length).length;
    const begins = this.#messages.flatMap((message, index) => (message.role === "user" ? [index] : []));
    const cut = stored === 0 ? this.#messages.length : (begins.at(-stored) ?? 0);
    if (cut === this.#cut) return;
    this.#cut = cut;
    this.#history.replaceChildren(...this.#views(this.#messages.slice(0, cut)));
    this.tell.changed();
  }

  /** @param {any[]} messages */
  #views(messages) {
    /** @type {TurnView[]} */
    const views = [];
    for (const { role, parts } of messages) {
      if (role === "system") continue;
      if (role === "user" || views.length === 0) {
        const own = role === "user" ? parts : [];
        views.push(new TurnView(this.page, own.map((/** @type {any} */ part) => part.text ?? `(${part.kind})`).join("\n")));
      }
      if (role !== "user") parts.forEach((/** @type {any} */ part) => views.at(-1)?.addPart(part));
    }
    return views.map((each) => each.element);
  }
}
