/**
 * A place that shows its newest part, unless somebody looks at an older one.
 * @module
 */

const NEAR = 80;

/**
 * @param {HTMLElement} place what scrolls
 * @param {HTMLElement} content what grows in it
 * @param {HTMLElement} button leads back to the newest part
 * @returns {() => void} shows the newest part
 */
export function followEnd(place, content, button) {
  let following = true;
  let last = 0;
  const toEnd = () => {
    following = true;
    place.scrollTop = place.scrollHeight;
  };
  const look = () => {
    const away = place.scrollHeight - place.scrollTop - place.clientHeight;
    // What grows faster than it is followed isn't somebody who looks elsewhere: that one goes up.
    following = away < NEAR || (following && place.scrollTop >= last);
    last = place.scrollTop;
    button.hidden = following;
  };
  place.addEventListener("scroll", look, { passive: true });
  button.addEventListener("click", toEnd);
  const grown = new ResizeObserver(() => (following ? toEnd() : look()));
  grown.observe(content);
  grown.observe(place);
  return toEnd;
}
