/**
 * Requests to the API, with the key where one is asked for.
 * @module
 */

const KEY = "api-key";

/** An answer that says no, or a server that says nothing. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status 0 where there was no answer
   */
  constructor(message, status) {
    super(message);
    this.name = "ApiError";
    this.status = status;
  }
}

/** Sends requests. */
export class Api {
  /** @type {Promise<string> | null} */
  #asking = null;
  /** @type {(wrong: boolean) => Promise<string>} */
  #askForKey;

  /** @param {(wrong: boolean) => Promise<string>} askForKey asks the person */
  constructor(askForKey) {
    this.#askForKey = askForKey;
  }

  /**
   * Send a request and return the answer's JSON; null where it has none.
   * @param {string} method
   * @param {string} path
   * @param {unknown} [body]
   * @returns {Promise<any>}
   */
  async call(method, path, body) {
    const answer = await this.request(path, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await answer.text();
    return text === "" ? null : JSON.parse(text);
  }

  /**
   * Send a request; ask for the key, and again, while the server wants another one.
   * @param {string} path relative to the page
   * @param {RequestInit} options
   * @returns {Promise<Response>}
   */
  async request(path, options) {
    for (;;) {
      const key = sessionStorage.getItem(KEY);
      const headers = { ...options.headers, ...(key === null ? {} : { Authorization: `Bearer ${key}` }) };
      const answer = await this.#fetch(path, { ...options, headers });
      if (answer.ok) return answer;
      if (answer.status !== 401) throw new ApiError(await reason(answer), answer.status);
      await this.#renew(key);
    }
  }

  /**
   * @param {string} path
   * @param {RequestInit} options
   */
  async #fetch(path, options) {
    try {
      return await fetch(new URL(path, document.baseURI), { ...options, cache: "no-store", credentials: "omit" });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new ApiError("The server can't be reached.", 0);
    }
  }

  /**
   * Ask for a key, once for all requests that wait for one.
   * @param {string | null} refused
   */
  async #renew(refused) {
    if (sessionStorage.getItem(KEY) !== refused) return;
    this.#asking ??= this.#askForKey(refused !== null);
    try {
      sessionStorage.setItem(KEY, await this.#asking);
    } finally {
      this.#asking = null;
    }
  }
}

/**
 * @param {Response} answer
 * @returns {Promise<string>}
 */
async function reason(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `The server answered ${answer.status}.`;
  }
}
