/** The page's one tooltip. */

import { html, useEffect, useRef, useState } from "../preact.js";

let show = () => {};

/** Shows `content` at a point of the window, in pixels; null hides the tooltip. */
export const showTooltip = (content, x = 0, y = 0) => show(content ? { content, x, y } : null);

export function Tooltip() {
  const [now, setNow] = useState(null);
  const box = useRef();
  useEffect(() => {
    show = setNow;
    const hide = () => setNow(null);
    addEventListener("scroll", hide, { passive: true, capture: true });
    return () => removeEventListener("scroll", hide, { capture: true });
  }, []);
  useEffect(() => {
    if (!now || !box.current) return;
    const { width, height } = box.current.getBoundingClientRect();
    const left = Math.min(Math.max(8, now.x - width / 2), document.documentElement.clientWidth - width - 8);
    const top = now.y - height - 12 < 8 ? now.y + 20 : now.y - height - 12;
    box.current.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  }, [now]);
  return html`<div class="tooltip" role="status" ref=${box} hidden=${!now}>${now?.content}</div>`;
}
