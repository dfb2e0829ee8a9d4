/**
 * The page: what a person does leads to requests, what the server tells leads to what is seen.
 * @module
 */

import { Conversation } from "./conversation.js";
import { askForKey, confirmed, showHelp } from "./dialogs.js";
import { byId } from "./dom.js";
import { Api, ApiError } from "./http.js";
import { listen } from "./keys.js";
import { followEnd } from "./scrolling.js";
import { SessionList, titleOf } from "./sessions.js";
import { EventStream } from "./stream.js";
import { Timeline } from "./timeline.js";

const STATES = { connecting: "Connecting…", live: "Connected", reconnecting: "Reconnecting…", closed: "" };

const REPLAY = 1000;

const composer = /** @type {HTMLTextAreaElement} */ (byId("composer-text"));
const send = /** @type {HTMLButtonElement} */ (byId("send"));
const stop = /** @type {HTMLButtonElement} */ (byId("stop"));
const root = byId("messages-content");

const api = new Api(askForKey);
const sessions = new SessionList(byId("session-list"), byId("session-note"), api, (id) => open(id));
const timeline = new Timeline(byId("timeline-list"), byId("timeline-empty"));
const conversation = new Conversation(root, { api, decide, again: (text) => void ask(text) }, { ended, waits, changed, incomplete: () => void reload() });
const toEnd = followEnd(byId("messages"), root, byId("to-end"));

/** @type {EventStream | null} */
let stream = null;
let current = "";
let loading = false;
let replayed = 0; // until when events are taken for old ones, which were kept

/** @param {string} suffix */
const path = (suffix = "") => `sessions/${encodeURIComponent(current)}${suffix}`;

// -- Which conversation is shown

/**
 * Show a conversation; none where the id is empty.
 * @param {string} id
 * @param {{known?: boolean, remember?: boolean}} [how] `known` says that it has just been made
 */
async function open(id, { known = false, remember = true } = {}) {
  stream?.close();
  stream = null;
  current = id;
  conversation.clear();
  timeline.clear();
  problem("");
  sessions.choose(id);
  if (remember) history.pushState(null, "", id ? `?session=${encodeURIComponent(id)}` : location.pathname);
  view("chat");
  changed();
  connection("closed");
  composer.focus({ preventScroll: true });
  if (id) watch(id, !known);
}

/**
 * Read a conversation's events, all that are kept first.
 * @param {string} id
 * @param {boolean} load whether it may have a history
 */
function watch(id, load) {
  const own = new EventStream(api, `${path("/events")}?after=0`, {
    event: ({ type, data }) => take(type, data),
    state: (state) => {
      if (current !== id) return;
      connection(state);
      if (state === "live" && load) {
        load = false;
        replayed = performance.now() + REPLAY;
        void reload();
      }
    },
    gone: () => current === id && lost(),
  });
  stream = own;
  void own.run();
}

/** Ask for what is stored, and for what waits. */
async function reload() {
  const id = current;
  loading = true;
  changed();
  try {
    const { messages } = await api.call("GET", path("/messages"));
    if (id !== current) return;
    conversation.load(messages);
    const { running } = await api.call("GET", path());
    if (id !== current) return;
    if (running) conversation.goOn();
    const { approvals } = await api.call("GET", path("/approvals"));
    if (id === current) conversation.remind(approvals);
  } catch (error) {
    if (id === current) problem(said(error));
  } finally {
    loading = false;
    changed();
  }
}

/** The conversation that is shown is no longer there. */
function lost() {
  void refresh();
  void open("", { remember: false });
  history.replaceState(null, "", location.pathname);
  problem("This conversation is no longer there: it was deleted, or the server keeps none after its end.");
}

/**
 * @param {string} type
 * @param {any} event
 */
function take(type, event) {
  if (type === "Reset") {
    conversation.clear();
    timeline.clear();
    return void reload();
  }
  timeline.take(type, event);
  if (!event.$truncated) conversation.take(type, event);
  if (type === "ToolApprovalResolvedEvent") {
    byId("alert").textContent = "";
    void refresh();
  }
}

// -- What a person does

/** @param {string} text */
async function ask(text) {
  if (!text.trim() || conversation.running) return;
  problem("");
  let turn = null;
  try {
    if (!current) {
      const { id } = await api.call("POST", "sessions", {});
      await open(id, { known: true });
    }
    const id = current;
    turn = conversation.expect(text);
    toEnd();
    const { turn_id } = await api.call("POST", path("/turns"), { text });
    if (id === current) conversation.accepted(turn, turn_id);
    void refresh();
  } catch (error) {
    if (turn) conversation.rejected(turn);
    if (!composer.value) composer.value = text;
    fit();
    problem(said(error));
  }
}

async function stopTurn() {
  if (!conversation.running) return;
  stop.disabled = true;
  await attempt(() => api.call("DELETE", path("/turns")), 404);
  stop.disabled = false;
}

/**
 * @param {import("./toolcall.js").Call} call
 * @param {boolean} approved
 */
async function decide(call, approved) {
  try {
    await api.call("POST", path(`/approvals/${encodeURIComponent(call.id)}`), { approved });
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 404) throw error;
    throw new Error("This call no longer waits: somebody else has decided, or it took too long.");
  }
}

async function fork() {
  await attempt(async () => {
    const { id } = await api.call("POST", path("/fork"), {});
    await open(id);
    announce("This is a copy of the conversation.");
    await sessions.refresh();
    changed();
  });
}

async function clear() {
  if (!(await confirmed("Clear this conversation?", "Its messages are forgotten. It stays in the list, empty.", "Clear"))) return;
  await attempt(async () => {
    await api.call("DELETE", path("/messages"));
    conversation.clear();
    await refresh();
  });
}

async function remove() {
  const id = current;
  const title = titleOf(sessions.find(id));
  if (!(await confirmed("Delete this conversation?", `“${title}” and all that was said in it are forgotten.`, "Delete"))) return;
  await attempt(async () => {
    stream?.close();
    await api.call("DELETE", path());
    await open("", { remember: false });
    history.replaceState(null, "", location.pathname);
    await refresh();
  });
}

// -- What is seen

/**
 * @param {string} answer
 * @param {string} status
 * @param {boolean} own
 */
function ended(answer, status, own) {
  if (!own && performance.now() < replayed) return;
  const words = { ok: `Answer: ${answer}`, cancelled: "Stopped.", error: "There is no answer: the turn failed." };
  announce(words[/** @type {keyof typeof words} */ (status)] ?? "");
  void refresh();
}

/** @param {string} name */
function waits(name) {
  byId("alert").textContent = `${name} waits for your approval: Shift+Tab leads from the message field to its buttons.`;
  void refresh();
}

/** Show what depends on where things stand. */
function changed() {
  const running = conversation.running !== null;
  send.hidden = running;
  stop.hidden = !running;
  const empty = conversation.empty && !loading;
  byId("welcome").hidden = !empty;
  byId("chat-title").textContent = current ? titleOf(sessions.find(current)) : "New conversation";
  byId("chat-actions").hidden = !current;
  document.title = current && !empty ? `${titleOf(sessions.find(current))} · Assistant` : "Assistant";
  for (const name of ["fork", "clear"]) {
    /** @type {HTMLButtonElement} */ (byId(name)).disabled = empty || running;
  }
}

/** @param {keyof typeof STATES} state */
function connection(state) {
  const shown = byId("connection");
  shown.dataset.state = state;
  shown.textContent = STATES[state];
}

/** @param {string} text */
function problem(text) {
  byId("problem").hidden = !text;
  byId("problem-text").textContent = text;
}

/** @param {string} text */
function announce(text) {
  byId("status").textContent = text;
}

/** @param {string} name */
function view(name) {
  document.body.dataset.view = name;
  for (const tab of document.querySelectorAll("[data-tab]")) {
    if (tab.getAttribute("data-tab") === name) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
}

/**
 * Do something; say so where it fails, but for a status that doesn't matter.
 * @param {() => Promise<unknown>} action
 * @param {number} [ignored]
 */
async function attempt(action, ignored) {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== ignored) problem(said(error));
  }
}

/** @param {unknown} error */
function said(error) {
  if (error instanceof ApiError && error.status === 0) return `${error.message} Is it running? Then try again.`;
  return error instanceof Error ? error.message : String(error);
}

async function refresh() {
  await attempt(() => sessions.refresh());
  changed();
}

/** Let the message field be as high as its text. */
function fit() {
  composer.style.height = "auto";
  composer.style.height = `${composer.scrollHeight}px`;
}

function toggleTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("theme", next);
  announce(`${next === "dark" ? "Dark" : "Light"} colours.`);
}

/** @param {boolean} shown */
function showTimeline(shown) {
  document.body.classList.toggle("no-timeline", !shown);
  byId("toggle-timeline").setAttribute("aria-pressed", String(shown));
  localStorage.setItem("timeline", shown ? "shown" : "hidden");
}

const toggleTimeline = () => showTimeline(document.body.classList.contains("no-timeline"));

function submit() {
  const text = composer.value;
  if (!text.trim() || conversation.running) return;
  composer.value = "";
  fit();
  void ask(text);
}

function startNew() {
  void open("");
}

/** @param {boolean} approved */
function decideFirst(approved) {
  const call = conversation.waiting[0];
  const name = approved ? ".approve" : ".deny";
  /** @type {HTMLElement | null | undefined} */ (call?.element.querySelector(name))?.click();
}

// -- The beginning

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
composer.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    submit();
  } else if (event.key === "Escape" && !conversation.running) composer.blur();
});
composer.addEventListener("input", fit);
stop.addEventListener("click", stopTurn);
byId("new").addEventListener("click", startNew);
byId("fork").addEventListener("click", fork);
byId("clear").addEventListener("click", clear);
byId("delete").addEventListener("click", remove);
byId("toggle-theme").addEventListener("click", toggleTheme);
byId("toggle-timeline").addEventListener("click", toggleTimeline);
byId("show-help").addEventListener("click", showHelp);
byId("help-close").addEventListener("click", () => /** @type {HTMLDialogElement} */ (byId("help")).close());
byId("problem-close").addEventListener("click", () => problem(""));
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  composer.focus();
});
for (const tab of document.querySelectorAll("[data-tab]")) {
  tab.addEventListener("click", () => view(tab.getAttribute("data-tab") ?? "chat"));
}
for (const example of document.querySelectorAll("#examples button")) {
  example.addEventListener("click", () => void ask(example.textContent ?? ""));
}
const filter = () =>
  timeline.filter(/** @type {HTMLInputElement} */ (byId("filter-text")).value, /** @type {HTMLSelectElement} */ (byId("filter-kind")).value);
byId("filter-text").addEventListener("input", filter);
byId("filter-kind").addEventListener("change", filter);
listen({
  stop: () => void stopTurn(),
  actions: {
    "?": showHelp,
    "/": () => composer.focus(),
    n: startNew,
    t: toggleTimeline,
    a: () => decideFirst(true),
    d: () => decideFirst(false),
  },
});
const named = () => new URLSearchParams(location.search).get("session") ?? "";
addEventListener("popstate", () => void open(named(), { remember: false }));
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) void refresh();
});
showTimeline(localStorage.getItem("timeline") !== "hidden");
void open(named(), { remember: false });
void refresh();
