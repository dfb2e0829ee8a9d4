/**
 * What single keys do.
 * @module
 */

import { byId } from "./dom.js";
import { asking } from "./dialogs.js";

const SWITCH = "single-keys";

/**
 * @param {{stop: () => void, actions: Record<string, () => void>}} does what Escape does, and what
 *   keys do while no text is being written
 */
export function listen({ stop, actions }) {
  const single = /** @type {HTMLInputElement} */ (byId("single-keys"));
  single.checked = localStorage.getItem(SWITCH) !== "off";
  single.addEventListener("change", () => localStorage.setItem(SWITCH, single.checked ? "on" : "off"));
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || asking() || event.isComposing) return;
    if (event.key === "Escape") return stop();
    const writes = event.target instanceof Element && event.target.closest("input, textarea, select");
    if (writes || !single.checked || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!Object.hasOwn(actions, event.key)) return;
    event.preventDefault();
    actions[event.key]();
  });
}
