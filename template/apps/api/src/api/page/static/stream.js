/**
 * A session's events, read without end: a stream that breaks is taken up where it broke.
 * `EventSource` won't do, since it can't send a key.
 * @module
 */

import { ApiError } from "./http.js";

/** @typedef {{id: string, type: string, data: any}} StreamedEvent */
/** @typedef {"connecting" | "live" | "reconnecting" | "closed"} StreamState */

const SILENCE = 45_000; // the server says something every 15 seconds
const LONGEST_PAUSE = 8000;

/** Reads the events of one session. */
export class EventStream {
  #stopped = new AbortController();
  #last = "";
  #failures = 0;
  #wake = () => {};

  /**
   * @param {import("./http.js").Api} api
   * @param {string} path
   * @param {{event: (event: StreamedEvent) => void, state: (state: StreamState) => void, gone: () => void}} hear
   */
  constructor(api, path, hear) {
    this.api = api;
    this.path = path;
    this.hear = hear;
  }

  /** Read until `close`. */
  async run() {
    const online = () => this.#wake();
    addEventListener("online", online);
    this.hear.state("connecting");
    while (!this.#stopped.signal.aborted) {
      try {
        await this.#read();
      } catch (error) {
        if (this.#stopped.signal.aborted) break;
        if (error instanceof ApiError && error.status === 404) {
          this.close();
          this.hear.gone();
          break;
        }
      }
      if (this.#stopped.signal.aborted) break;
      this.hear.state("reconnecting");
      await this.#pause();
    }
    removeEventListener("online", online);
  }

  /** Read no more. */
  close() {
    this.#stopped.abort();
    this.#wake();
    this.hear.state("closed");
  }

  async #read() {
    const cut = new AbortController();
    const stop = () => cut.abort();
    this.#stopped.signal.addEventListener("abort", stop);
    let silence = setTimeout(stop, SILENCE);
    try {
      const headers = { Accept: "text/event-stream", ...(this.#last ? { "Last-Event-ID": this.#last } : {}) };
      const answer = await this.api.request(this.path, { headers, signal: cut.signal });
      if (answer.body === null) return;
      this.hear.state("live");
      const parser = new Parser((event) => this.#take(event));
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        this.#failures = 0;
        clearTimeout(silence);
        silence = setTimeout(stop, SILENCE);
        parser.feed(value);
      }
    } finally {
      clearTimeout(silence);
      this.#stopped.signal.removeEventListener("abort", stop);
    }
  }

  /** @param {{id: string, type: string, data: string}} event */
  #take(event) {
    if (this.#stopped.signal.aborted) return;
    if (event.id) this.#last = event.id;
    this.hear.event({ ...event, data: JSON.parse(event.data) });
  }

  /** @returns {Promise<void>} */
  #pause() {
    const longest = Math.min(LONGEST_PAUSE, 250 * 2 ** this.#failures++);
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, longest * (0.5 + Math.random() / 2));
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** Takes server-sent events apart, in whatever pieces they come. */
export class Parser {
  #rest = "";
  #id = "";
  #type = "";
  /** @type {string[]} */
  #data = [];

  /** @param {(event: {id: string, type: string, data: string}) => void} hear */
  constructor(hear) {
    this.hear = hear;
  }

  /** @param {string} text */
  feed(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#line(line);
  }

  /** @param {string} line */
  #line(line) {
    if (line === "") {
      if (this.#data.length) this.hear({ id: this.#id, type: this.#type || "message", data: this.#data.join("\n") });
      this.#type = "";
      this.#data = [];
      return;
    }
    const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
    if (name === "id") this.#id = value;
    else if (name === "event") this.#type = value;
    else if (name === "data") this.#data.push(value);
  }
}
