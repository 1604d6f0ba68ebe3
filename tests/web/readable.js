/**
 * Runs in the page. Returns the texts with a contrast below 4.5 to 1 (WCAG 2, AA), and the
 * controls without a name.
 */

const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

/** The colours painted over each other, as red, green, blue. */
function painted(colours) {
  pen.clearRect(0, 0, 1, 1);
  for (const colour of colours) {
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
  }
  return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
}

function luminance(rgb) {
  const [red, green, blue] = rgb.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(element) {
  const behind = [];
  for (let node = element; node; node = node.parentElement) {
    behind.unshift(getComputedStyle(node).backgroundColor);
  }
  const grounds = luminance(painted(behind));
  const text = luminance(painted([...behind, getComputedStyle(element).color]));
  return (Math.max(grounds, text) + 0.05) / (Math.min(grounds, text) + 0.05);
}

const isText = (node) => node.nodeType === 3 && node.textContent.trim();
const hasText = (element) => [...element.childNodes].some(isText);
const isShown = (element) => element.checkVisibility() && !element.closest(".spoken");

const faint = {};
for (const element of document.querySelectorAll("#app *")) {
  if (!hasText(element) || !isShown(element)) continue;
  const ratio = contrast(element);
  const name = `${element.tagName} ${element.className} ${element.textContent.trim()}`;
  if (ratio < 4.5) faint[name] = ratio;
}
const nameless = [...document.querySelectorAll("button, a, input")]
  .filter((control) => !(control.textContent.trim() || control.ariaLabel || control.labels?.length))
  .map((control) => control.outerHTML);
return { faint, nameless };
