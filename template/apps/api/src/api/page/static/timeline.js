/**
 * The bus at work: commands, model and tool calls with what they took, and every other event.
 * @module
 */

import { el } from "./dom.js";
import { brief, count, duration, seconds, tokens } from "./format.js";

/** @typedef {"command" | "model" | "tool" | "event"} Kind */
/** @typedef {"running" | "ok" | "error" | "cancelled" | "waiting" | "event"} Mark */
/**
 * @typedef {object} Row
 * @property {HTMLElement} item
 * @property {Kind} kind
 * @property {Row | null} parent
 * @property {number} depth
 * @property {number} begin
 * @property {number} end
 * @property {Record<string, any>} record what there is to know
 * @property {string} words what a filter looks through
 * @property {number} chunks
 * @property {string} id by which later events find it; empty where none does
 */

const MOST = 1500;
const MARKS = { running: "running", ok: "done", error: "failed", cancelled: "cancelled", waiting: "waits", event: "event" };

/** Shows the events of one session. */
export class Timeline {
  /** @type {Row[]} */
  #rows = [];
  /** @type {Map<string, Row>} */
  #byId = new Map();
  #text = "";
  #kind = "all";

  /**
   * @param {HTMLElement} list
   * @param {HTMLElement} empty what is shown while there is nothing
   */
  constructor(list, empty) {
    this.list = list;
    this.empty = empty;
  }

  /** Forget everything. */
  clear() {
    this.#rows = [];
    this.#byId.clear();
    this.list.replaceChildren();
    this.empty.hidden = false;
  }

  /**
   * Show what fits alone.
   * @param {string} text
   * @param {string} kind
   */
  filter(text, kind) {
    this.#text = text.trim().toLowerCase();
    this.#kind = kind;
    this.#rows.forEach((row) => this.#sift(row));
  }

  /**
   * Take an event of the bus.
   * @param {string} type
   * @param {any} event its record
   */
  take(type, event) {
    // Chunks come by the hundred and add no row: where the list stands is not asked for each.
    if (type === "LLMChunkEvent") return this.#chunk(event.call_id);
    const atEnd = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 60;
    this.#take(type, event);
    if (atEnd) this.list.scrollTop = this.list.scrollHeight;
  }

  /**
   * @param {string} type
   * @param {any} event
   */
  #take(type, event) {
    if (event.$truncated) return this.#event(type, event, event.parent_id); // it says no more
    switch (type) {
      case "CommandStartedEvent":
        return this.#open(event.command.id, "command", event.command.$type, "", event);
      case "CommandResultEvent":
        return this.#close(event.command.id, event, event.result.status, event.result.duration);
      case "LLMCallStartedEvent":
        return this.#open(event.call_id, "model", event.request.model || event.provider, "", event);
      case "LLMCallResultEvent":
        return this.#answered(event);
      case "ToolExecuteStartedEvent":
        return this.#open(`tool ${event.call.id}`, "tool", event.call.name, brief(event.call.arguments), event);
      case "ToolExecuteResultEvent":
        return this.#close(`tool ${event.call.id}`, event, event.result.is_error ? "error" : "ok", event.duration);
      case "ToolApprovalRequestedEvent":
        this.#mark(this.#byId.get(`tool ${event.call.id}`), "waiting");
        return this.#event(type, event, `tool ${event.call.id}`);
      case "ToolApprovalResolvedEvent":
        this.#mark(this.#byId.get(`tool ${event.call.id}`), "running");
        return this.#event(type, event, `tool ${event.call.id}`);
      case "SpanStartedEvent":
        return this.#open(event.id, "event", event.name, "", event);
      case "SpanEndedEvent":
        return this.#close(event.span_id, event, event.error ? "error" : "ok", event.duration);
      default:
        return this.#event(type, event, event.parent_id);
    }
  }

  /**
   * @param {string} id
   * @param {Kind} kind
   * @param {string} name
   * @param {string} detail
   * @param {any} event
   */
  #open(id, kind, name, detail, event) {
    // A command's events name the command as their parent, and so does its own first event.
    const parent = event.parent_id === id ? this.#byId.get(event.command?.parent_id) : this.#byId.get(event.parent_id);
    const row = this.#add(kind, "running", name, detail, event, parent ?? null);
    row.record = { started: event };
    row.id = id;
    this.#byId.set(id, row);
  }

  /**
   * @param {string} id
   * @param {any} event
   * @param {Mark} mark
   * @param {number} took
   */
  #close(id, event, mark, took) {
    const row = this.#byId.get(id);
    if (!row) return this.#event(event.event_type, event, event.parent_id);
    row.record = { ...row.record, ended: event };
    row.end = row.begin + took;
    this.#mark(row, mark);
    part(row, "took").textContent = duration(took);
    const error = event.result?.error ?? event.error;
    if (error?.type) this.#detail(row, failure(error));
    this.#scale(row);
  }

  /** @param {any} event */
  #answered(event) {
    const error = event.error?.type;
    const mark = error ? (/Cancel/.test(error) ? "cancelled" : "error") : event.response ? "ok" : "cancelled";
    this.#close(event.call_id, event, mark, event.duration);
    const row = this.#byId.get(event.call_id);
    if (row) part(row, "tokens").textContent = tokens(event.response?.usage);
  }

  /** @param {string} id */
  #chunk(id) {
    const row = this.#byId.get(id);
    if (!row) return;
    row.chunks += 1;
    this.#detail(row, `${count(row.chunks)} ${row.chunks === 1 ? "chunk" : "chunks"}`);
  }

  /**
   * @param {string} type
   * @param {any} event
   * @param {string} parent
   */
  #event(type, event, parent) {
    const failed = type === "EventHandlerFailedEvent" || event.level === "error" || event.level === "critical" || event.status === "error";
    const row = this.#add("event", failed ? "error" : "event", type.replace(/Event$/, ""), told(event), event, this.#byId.get(parent) ?? null);
    row.record = { event };
  }

  /**
   * @param {Kind} kind
   * @param {Mark} mark
   * @param {string} name
   * @param {string} detail
   * @param {any} event
   * @param {Row | null} parent
   * @returns {Row}
   */
  #add(kind, mark, name, detail, event, parent) {
    const place = el("pre", { tabindex: 0 });
    const opened = () => {
      place.textContent = JSON.stringify(row.record, null, 2);
    };
    const item = el(
      "li",
      { class: "row", "data-kind": kind },
      el(
        "details",
        { toggle: opened },
        el(
          "summary",
          {},
          el("span", { class: "mark", role: "img" }),
          el(
            "span",
            { class: "what" },
            kind === "model" || kind === "tool" ? el("span", { class: "kind", text: `${kind} ` }) : null,
            el("span", { class: "name", text: name }),
            " ",
            el("span", { class: "detail" }),
          ),
          el("span", { class: "tokens", title: "Tokens in and out" }),
          el("span", { class: "took" }),
          el("span", { class: "bar", "aria-hidden": "true" }),
        ),
        place,
      ),
    );
    const depth = parent ? Math.min(parent.depth + 1, 6) : 0;
    const begin = seconds(event.timestamp);
    /** @type {Row} */
    const row = { item, kind, parent, depth, begin, end: begin, record: {}, words: `${name} ${kind}`.toLowerCase(), chunks: 0, id: "" };
    item.style.setProperty("--depth", String(depth));
    this.#mark(row, mark);
    this.#detail(row, detail);
    this.#place(row);
    this.#sift(row);
    this.empty.hidden = true;
    if (this.#rows.length > MOST) this.#forget(this.#rows.shift());
    return row;
  }

  /**
   * Put a row behind all that belongs to its parent.
   * @param {Row} row
   */
  #place(row) {
    const { parent } = row;
    const last = parent ? this.#rows.findLastIndex((each) => within(each, parent)) : -1;
    const at = last < 0 ? this.#rows.length : last + 1;
    this.list.insertBefore(row.item, this.#rows[at]?.item ?? null);
    this.#rows.splice(at, 0, row);
  }

  /** @param {Row | undefined} row */
  #forget(row) {
    row?.item.remove();
    if (row && this.#byId.get(row.id) === row) this.#byId.delete(row.id);
  }

  /**
   * @param {Row | undefined} row
   * @param {Mark} mark
   */
  #mark(row, mark) {
    if (!row) return;
    row.item.dataset.mark = mark;
    part(row, "mark").setAttribute("aria-label", MARKS[mark]);
  }

  /**
   * @param {Row} row
   * @param {string} text
   */
  #detail(row, text) {
    part(row, "detail").textContent = text;
    row.words = `${row.words.split("\n")[0]}\n${text.toLowerCase()}`;
  }

  /**
   * Show where in the time of the outermost row the ended ones lie.
   * @param {Row} row
   */
  #scale(row) {
    let root = row;
    while (root.parent) root = root.parent;
    for (const each of row === root ? this.#rows.filter((other) => within(other, root)) : [row]) {
      const whole = Math.max(root.end, row.end) - root.begin;
      if (each.end <= each.begin || whole <= 0) continue;
      const from = Math.min(1, Math.max(0, (each.begin - root.begin) / whole));
      each.item.style.setProperty("--from", String(from));
      each.item.style.setProperty("--share", String(Math.min(1 - from, (each.end - each.begin) / whole)));
      each.item.classList.toggle("timed", each !== root); // the outermost one is the whole
    }
  }

  /** @param {Row} row */
  #sift(row) {
    const kind = this.#kind === "all" || this.#kind === row.kind || (this.#kind === "error" && row.item.dataset.mark === "error");
    row.item.hidden = !(kind && row.words.includes(this.#text));
  }
}

/**
 * @param {Row} row
 * @param {Row} root
 */
function within(row, root) {
  /** @type {Row | null} */
  let each = row;
  while (each && each !== root) each = each.parent;
  return each === root;
}

/**
 * @param {Row} row
 * @param {string} name
 * @returns {HTMLElement}
 */
function part(row, name) {
  return /** @type {HTMLElement} */ (row.item.querySelector(`summary .${name}`));
}

/** @param {{type: string, message: string}} error */
function failure({ type, message }) {
  return `${type.split(".").at(-1)}: ${message}`;
}

/**
 * What an event says in a few words.
 * @param {any} event
 * @returns {string}
 */
function told(event) {
  if (typeof event.length === "number") return `${count(event.length)} messages`;
  if (event.error?.type) return failure(event.error);
  if (typeof event.text === "string") return event.text;
  if (typeof event.value === "number") return `${event.name} ${event.value} ${event.unit}`;
  if (typeof event.approved === "boolean") return event.approved ? "approved" : `denied ${event.reason}`;
  return typeof event.status === "string" ? event.status : "";
}
