/**
 * What the page asks of a person.
 * @module
 */

import { byId } from "./dom.js";

/**
 * Ask whether something that can't be undone shall be done.
 * @param {string} question
 * @param {string} consequence
 * @param {string} action what the button says
 * @returns {Promise<boolean>}
 */
export function confirmed(question, consequence, action) {
  const dialog = opened("confirm");
  byId("confirm-question").textContent = question;
  byId("confirm-consequence").textContent = consequence;
  const yes = byId("confirm-yes");
  yes.textContent = action;
  byId("confirm-no").focus(); // what Enter does at once does no harm
  return new Promise((resolve) => {
    const agree = () => dialog.close("yes");
    const refuse = () => dialog.close("");
    yes.addEventListener("click", agree);
    byId("confirm-no").addEventListener("click", refuse);
    dialog.addEventListener(
      "close",
      () => {
        yes.removeEventListener("click", agree);
        byId("confirm-no").removeEventListener("click", refuse);
        resolve(dialog.returnValue === "yes");
      },
      { once: true },
    );
  });
}

/**
 * Ask for the API's key.
 * @param {boolean} wrong whether one was given that the server didn't take
 * @returns {Promise<string>}
 */
export function askForKey(wrong) {
  const dialog = opened("key");
  const form = /** @type {HTMLFormElement} */ (byId("key-form"));
  const field = /** @type {HTMLInputElement} */ (byId("key-field"));
  const problem = byId("key-problem");
  problem.textContent = wrong ? "The server doesn't know this key." : "";
  field.setAttribute("aria-invalid", String(wrong));
  field.value = "";
  field.focus();
  // There is nothing to be seen without it.
  const stay = (/** @type {Event} */ event) => event.preventDefault();
  dialog.addEventListener("cancel", stay);
  return new Promise((resolve) => {
    const submit = (/** @type {Event} */ event) => {
      event.preventDefault();
      // What can't stand in a header can't be a key.
      const key = field.value.trim();
      if (!/^[\x21-\x7e]+$/.test(key)) {
        problem.textContent = "Enter the key: letters, digits and signs, without spaces.";
        return;
      }
      form.removeEventListener("submit", submit);
      dialog.removeEventListener("cancel", stay);
      dialog.close();
      resolve(key);
    };
    form.addEventListener("submit", submit);
  });
}

/** Show the keyboard shortcuts. */
export function showHelp() {
  opened("help");
}

/** Whether something is being asked. */
export function asking() {
  return document.querySelector("dialog[open]") !== null;
}

/** @param {string} id */
function opened(id) {
  const dialog = /** @type {HTMLDialogElement} */ (byId(id));
  dialog.returnValue = "";
  if (!dialog.open) dialog.showModal();
  return dialog;
}
