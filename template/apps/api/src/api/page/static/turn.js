/**
 * A turn of a conversation: what was asked, and all that comes of it while it runs.
 * @module
 */

import { el, icon } from "./dom.js";
import { count, duration, textOf } from "./format.js";
import { MarkdownText } from "./markdown.js";
import { ToolCallView } from "./toolcall.js";

/** @typedef {import("./toolcall.js").Call} Call */

/**
 * What a turn needs of the page.
 * @typedef {object} Surroundings
 * @property {import("./http.js").Api} api
 * @property {(call: Call, approved: boolean) => Promise<void>} decide
 * @property {(text: string) => void} again asks once more
 */

/** What to do about an error, by its type; the message itself says what was wrong. */
const ADVICE = {
  AuthenticationError: "Set the provider's key in .env, and start the server again.",
  PermissionDeniedError: "The provider's key is known, but may not do this.",
  NotFoundError: "Check the model's name under [provider] in settings.toml.",
  QuotaExceededError: "The provider's account is used up: check its plan and billing.",
  RateLimitError: "The provider asks to slow down. Try again in a moment.",
  OverloadedError: "The provider is overloaded. Try again in a moment.",
  ProviderServerError: "The provider failed. Try again in a moment.",
  ProviderConnectionError: "Check the network, and the provider's address in settings.toml.",
  ProviderTimeoutError: "The provider took too long. Try again.",
  StreamInterruptedError: "The answer broke off. Try again.",
  ContextLengthError: "The conversation is too long for the model. Begin a new one, or clear this one.",
  ContentFilterError: "The provider refused the content. Put it in other words.",
  BudgetExceededError: "What may be spent is spent: see [budget] in settings.toml.",
};

/** Shows a turn. */
export class TurnView {
  /** @type {Map<string, ToolCallView>} */
  #calls = new Map();
  /** @type {Map<string, {text: MarkdownText | null, thinking: HTMLElement | null}>} */
  #answers = new Map();
  #body = el("div", { class: "turn-body" });
  #waiting = el("p", { class: "working" }, el("span", { class: "dots", "aria-hidden": "true" }), "Working…");
  #said = "";

  /**
   * @param {Surroundings} page
   * @param {string} text what was asked
   */
  constructor(page, text) {
    this.page = page;
    this.text = text;
    this.element = el("div", { class: "turn" });
    if (text) this.element.append(spoken("You", "user", el("p", { class: "plain", text })));
    this.element.append(this.#body);
  }

  /** The text of the last answer. */
  get answer() {
    return this.#said;
  }

  /** Calls that wait for a person, oldest first. */
  get waiting() {
    return [...this.#calls.values()].filter((each) => each.waiting);
  }

  /** It runs. */
  begin() {
    this.#body.append(this.#waiting);
  }

  /**
   * Show what the stored history has of it.
   * @param {any} part
   */
  addPart(part) {
    if (part.type === "text" && part.text) {
      const text = new MarkdownText(this.page.api);
      text.set(part.text);
      this.#add(spoken("Assistant", "assistant", text.element));
    } else if (part.type === "thinking" && part.text) this.#add(thought(part.text).element);
    else if (part.type === "tool_call") this.#call(part);
    else if (part.type === "tool_result") this.#calls.get(part.tool_call_id)?.end(part.text, part.is_error);
    else if (part.type === "other") this.#add(el("p", { class: "quiet-text", text: `(${part.kind})` }));
  }

  /**
   * Take an event of the bus.
   * @param {any} event its record
   */
  take(event) {
    switch (event.event_type) {
      case "LLMChunkEvent":
        return this.#chunk(event.call_id, event.chunk);
      case "LLMCallResultEvent":
        return this.#answered(event);
      case "ToolExecuteStartedEvent":
        return this.#call(event.call).run();
      case "ToolApprovalRequestedEvent":
        return this.ask(event.call, event.expires_at);
      case "ToolApprovalResolvedEvent":
        return this.#call(event.call).resolve(event.approved, event.reason);
      case "ToolExecuteResultEvent":
        return this.#call(event.call).end(contentOf(event.result.content), event.result.is_error, event.duration);
    }
  }

  /**
   * Ask the person about a call.
   * @param {Call} call
   * @param {number} expires
   */
  ask(call, expires) {
    this.#call(call).wait(expires);
  }

  /**
   * It has ended.
   * @param {{status: string, error: {type: string, message: string} | null, usage: any}} end
   * @param {number | null} seconds
   */
  end(end, seconds) {
    this.#waiting.remove();
    if (end.status === "error") this.#body.append(this.failure(end.error ?? { type: "Error", message: "The turn failed." }));
    const said = [end.status === "cancelled" ? "Stopped" : "", duration(seconds), spent(end.usage)];
    this.#body.append(el("p", { class: "turn-end", text: said.filter(Boolean).join(" · ") }));
  }

  /**
   * Show an error, and what to do about it.
   * @param {{type: string, message: string}} error
   */
  failure(error) {
    const advice = Object.hasOwn(ADVICE, error.type) ? ADVICE[/** @type {keyof typeof ADVICE} */ (error.type)] : "";
    return el(
      "div",
      { class: "failure" },
      el("p", { class: "failure-title" }, icon("warning"), "No answer"),
      el("p", { text: error.message }),
      el("p", { class: "quiet-text", text: [error.type, advice].filter(Boolean).join(" · ") }),
      el("button", { type: "button", text: "Try again", click: () => this.page.again(this.text) }),
    );
  }

  /** @param {HTMLElement} element */
  #add(element) {
    if (this.#waiting.isConnected) this.#waiting.before(element);
    else this.#body.append(element);
  }

  /** @param {Call} call */
  #call(call) {
    let view = this.#calls.get(call.id);
    if (!view) {
      view = new ToolCallView(call, (approved) => this.page.decide(call, approved));
      this.#calls.set(call.id, view);
      this.#add(view.element);
    }
    return view;
  }

  /**
   * @param {string} id
   * @param {any} chunk
   */
  #chunk(id, chunk) {
    if (chunk.$type === "TextDelta") this.#text(id).append(textOf(chunk.text));
    if (chunk.$type === "ThinkingDelta" && chunk.text) this.#thinking(id).append(textOf(chunk.text));
  }

  /** @param {string} id */
  #answer(id) {
    const answer = this.#answers.get(id) ?? { text: null, thinking: null };
    this.#answers.set(id, answer);
    return answer;
  }

  /** @param {string} id */
  #text(id) {
    const answer = this.#answer(id);
    if (answer.text === null) {
      answer.text = new MarkdownText(this.page.api);
      this.#add(spoken("Assistant", "assistant", answer.text.element));
    }
    return answer.text;
  }

  /** @param {string} id */
  #thinking(id) {
    const answer = this.#answer(id);
    if (answer.thinking === null) {
      const { element, place } = thought("");
      answer.thinking = place;
      this.#add(element);
    }
    return answer.thinking;
  }

  /** @param {any} event */
  #answered(event) {
    const parts = event.response?.message?.parts ?? [];
    const said = parts.filter((/** @type {any} */ each) => each.$type === "TextPart").map((/** @type {any} */ each) => textOf(each.text)).join("");
    const refusals = parts.filter((/** @type {any} */ each) => each.$type === "RefusalPart").map((/** @type {any} */ each) => textOf(each.text)).join("");
    // Whoever answers at once, and not in pieces, is heard here.
    if (said || refusals) this.#text(event.call_id).set(said || refusals);
    this.#said = said || refusals || this.#said;
  }
}

/**
 * @param {string} who
 * @param {string} role
 * @param {HTMLElement} content
 */
function spoken(who, role, content) {
  return el("article", { class: `message ${role}`, "aria-label": who }, content);
}

/** @param {{input_tokens?: number | null, output_tokens?: number | null} | null} usage */
function spent(usage) {
  const { input_tokens: input, output_tokens: output } = usage ?? {};
  return typeof input === "number" || typeof output === "number" ? `${count(input)} tokens in, ${count(output)} out` : "";
}

/** @param {string} text */
function thought(text) {
  const place = el("p", { class: "plain", text });
  const element = el("details", { class: "thought" }, el("summary", {}, icon("thought"), "Thinking"), place);
  return { element, place };
}

/**
 * What a tool answered: a text, or parts.
 * @param {any} content
 * @returns {string}
 */
function contentOf(content) {
  if (!Array.isArray(content)) return textOf(content);
  return content.map((part) => ("text" in part ? textOf(part.text) : `(${part.kind ?? part.$type})`)).join("\n");
}
