/**
 * Runs in the page. Returns what is wrong with its layout: parts wider than the window, texts printed over one another,
 * and texts that are cut off. A text that ends in an ellipsis is shortened on purpose.
 */

const LAYERS = "dialog[open], .detail, .alerts-list, .tooltip"; // they lie over the rest of the page
const SLACK = 1.5; // pixels: letters reach a little beyond their boxes
const AIR = 0.2; // of a line's height above its letters, and as much below them

const isSpoken = (element) => element.closest(".spoken, noscript, title, script, style, svg, select, [inert]");
const said = (text) => text.textContent.trim().slice(0, 40);

/** The part of a box that its ancestors let one see; null where that is nothing. */
function visible(element, box) {
  let { left, top, right, bottom } = box;
  for (let node = element; node && node !== document.documentElement; node = node.parentElement) {
    const style = getComputedStyle(node);
    if (style.overflowX !== "visible" || style.overflowY !== "visible") {
      const frame = node.getBoundingClientRect();
      [left, right] = [Math.max(left, frame.left), Math.min(right, frame.right)];
      [top, bottom] = [Math.max(top, frame.top), Math.min(bottom, frame.bottom)];
    }
    if (style.position === "fixed") break;
  }
  return right - left > SLACK && bottom - top > SLACK ? { left, top, right, bottom } : null;
}

const texts = [];
const cutOff = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const text = walker.currentNode;
  const element = text.parentElement;
  if (!text.textContent.trim() || isSpoken(element) || !element.checkVisibility({ visibilityProperty: true })) continue;
  const range = document.createRange();
  range.selectNodeContents(text);
  for (const box of range.getClientRects()) {
    const seen = visible(element, box);
    const air = AIR * box.height;
    if (seen) texts.push({ text, element, layer: element.closest(LAYERS), ...seen, top: seen.top + air, bottom: seen.bottom - air });
    const frame = element.closest(".scroller, .copyable, .table-scroll");
    const isShortened = getComputedStyle(element).textOverflow === "ellipsis" || getComputedStyle(element).webkitLineClamp !== "none";
    const isCut = seen && (seen.right < box.right - SLACK || seen.left > box.left + SLACK);
    if (isCut && !isShortened && !frame) cutOff.push(said(text));
  }
}

const overprinted = [];
texts.sort((one, other) => one.top - other.top);
for (let at = 0; at < texts.length; at += 1) {
  const one = texts[at];
  for (let next = at + 1; next < texts.length && texts[next].top < one.bottom - SLACK; next += 1) {
    const other = texts[next];
    if (one.layer !== other.layer || one.text === other.text) continue;
    const wide = Math.min(one.right, other.right) - Math.max(one.left, other.left);
    const high = Math.min(one.bottom, other.bottom) - other.top;
    if (wide > SLACK && high > 3) overprinted.push(`${said(one.text)} / ${said(other.text)}`);
  }
}

const tooWide = [];
for (const element of document.querySelectorAll("html, .detail, dialog[open]")) {
  if (element.scrollWidth > element.clientWidth + 1) tooWide.push(`${element.tagName} ${element.scrollWidth} > ${element.clientWidth}`);
}
const beyond = texts.filter(({ right, left }) => right > innerWidth + SLACK || left < -SLACK).map(({ text }) => said(text));
return { tooWide, beyond, cutOff: [...new Set(cutOff)], overprinted: [...new Set(overprinted)] };
