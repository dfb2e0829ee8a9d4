/**
 * A tool call, folded in place: what was called, what came of it, and whether it may run.
 * @module
 */

import { el, icon } from "./dom.js";
import { brief, duration, pretty } from "./format.js";

/** @typedef {{id: string, name: string, arguments: string}} Call */
/** @typedef {"called" | "running" | "waiting" | "ok" | "error"} CallState */

const SAID = { called: "called", running: "running", waiting: "waits for you", ok: "done", error: "failed" };

/** Shows one call. */
export class ToolCallView {
  /** @type {CallState} */
  #state = "called";
  #status = el("span", { class: "call-status" });
  #body = el("div", { class: "call-body" });
  #decision = el("div", { class: "decision" });
  #held = false; // whether the keyboard was here when a button was pressed

  /**
   * @param {Call} call
   * @param {(approved: boolean) => Promise<void>} decide sends a person's word
   */
  constructor(call, decide) {
    this.call = call;
    this.decide = decide;
    this.element = /** @type {HTMLDetailsElement} */ (
      el(
        "details",
        { class: "call" },
        el(
          "summary",
          {},
          icon("tool"),
          el("span", { class: "call-name", text: call.name }),
          el("span", { class: "call-brief", text: brief(call.arguments) }),
          this.#status,
        ),
        this.#body,
      )
    );
    this.#body.append(block("Arguments", pretty(call.arguments)), this.#decision);
    this.#say("called");
  }

  get waiting() {
    return this.#state === "waiting";
  }

  /** It has begun. */
  run() {
    this.#say("running");
  }

  /**
   * A person has to agree to it.
   * @param {number} expires in seconds since 1970
   */
  wait(expires) {
    if (this.waiting) return;
    const left = new Date(expires * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const problem = el("p", { class: "problem", role: "alert" });
    const answer = (/** @type {boolean} */ approved) => async () => {
      this.#held = this.#decision.contains(document.activeElement);
      buttons.forEach((each) => each.setAttribute("disabled", ""));
      try {
        await this.decide(approved);
      } catch (error) {
        problem.textContent = error instanceof Error ? error.message : String(error);
        buttons.forEach((each) => each.removeAttribute("disabled"));
      }
    };
    const buttons = [
      el("button", { type: "button", class: "primary approve", click: answer(true), "aria-label": `Approve ${this.call.name}` }, icon("check"), "Approve"),
      el("button", { type: "button", class: "deny", click: answer(false), "aria-label": `Deny ${this.call.name}` }, icon("cross"), "Deny"),
    ];
    this.#decision.replaceChildren(
      el("p", {}, "The model wants to run ", el("code", { text: this.call.name }), ` as above. Nothing happens before you decide; after ${left} it is refused.`),
      el("div", { class: "buttons" }, ...buttons),
      problem,
    );
    this.element.open = true;
    this.#say("waiting");
  }

  /**
   * A person, or time, has decided.
   * @param {boolean} approved
   * @param {string} reason
   */
  resolve(approved, reason) {
    const said = approved ? "Approved." : `Not approved${reason ? `: ${reason}` : "."}`;
    this.#decision.replaceChildren(el("p", { class: "quiet-text", text: said }));
    if (this.#held) this.element.querySelector("summary")?.focus();
    this.#held = false;
    this.#say("running");
  }

  /**
   * It has ended.
   * @param {string} text
   * @param {boolean} isError
   * @param {number | null} [seconds]
   */
  end(text, isError, seconds) {
    if (this.waiting) this.#decision.replaceChildren();
    this.#body.querySelector(".result")?.remove();
    const result = block(isError ? "Error" : "Result", pretty(text) || "(nothing)");
    result.classList.add("result");
    this.#body.append(result);
    this.#say(isError ? "error" : "ok", seconds);
  }

  /** Let the keyboard answer. */
  focus() {
    /** @type {HTMLElement | null} */ (this.#decision.querySelector("button"))?.focus();
  }

  /**
   * @param {CallState} state
   * @param {number | null} [seconds]
   */
  #say(state, seconds) {
    this.#state = state;
    this.element.dataset.state = state;
    this.#status.textContent = [SAID[state], duration(seconds)].filter(Boolean).join(" · ");
  }
}

/**
 * @param {string} title
 * @param {string} text
 */
function block(title, text) {
  return el("div", { class: "call-block" }, el("h3", { text: title }), el("pre", { tabindex: 0, text }));
}
