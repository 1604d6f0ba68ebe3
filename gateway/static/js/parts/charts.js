/** Uptime and response time of an agent over a period, drawn by uPlot, which is loaded on first use. */

import { NOTHING, percent } from "../format.js";
import { html, useEffect, useRef, useState } from "../preact.js";
import { serverNow } from "../store.js";
import { responseChart, uptimeChart } from "./plots.js";

const PERIODS = [
  { hours: 24, label: "24 h" },
  { hours: 24 * 7, label: "7 d" },
];

export function Charts({ outcomes, hours, setHours }) {
  const { pings, summary, problem } = outcomes;
  const value = percent(summary?.uptime_percent);
  return html`<section class="block" aria-label="Uptime">
    <div class="block-head">
      <h2>Uptime <span class="quiet">${value === NOTHING ? "not judged yet" : value}</span></h2>
      <div class="periods" role="group" aria-label="Period">${PERIODS.map(
        (period) => html`<button
        key=${period.hours} type="button"
        aria-pressed=${period.hours === hours ? "true" : "false"} onClick=${() => setHours(period.hours)}
      >${period.label}</button>`,
      )}</div>
    </div>
    <${Plot} draw=${uptimeChart} pings=${pings} hours=${hours}
      label=${`Uptime of each window in the last ${hours} hours; the table below holds the same`} />
    <h3 class="quiet">Response time</h3>
    <${Plot} draw=${responseChart} pings=${pings} hours=${hours} label="Response time of each ping in milliseconds" />
    ${problem && html`<p class="note">The chart shows what came in live; history is away: ${problem}</p>`}
  </section>`;
}

/** The time range of the x axis: the requested hours, or less when the known outcomes begin later. */
function period(pings, hours) {
  const until = serverNow() / 1000;
  const oldest = pings.at(-1);
  const known = oldest ? Date.parse(oldest.pinged_at) / 1000 - (oldest.window_seconds ?? 0) : 0;
  return { since: Math.min(until - 60, Math.max(until - hours * 3600, known)), until };
}

function Plot({ draw, pings, hours, label }) {
  const container = useRef();
  const [width, setWidth] = useState(0);
  const theme = useThemeChanges();
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    observer.observe(container.current);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    if (width === 0) return undefined;
    let plot = null;
    let isCancelled = false;
    import("../../vendor/uplot.js").then(({ default: UPlot }) => {
      if (isCancelled) return;
      plot = draw(UPlot, container.current, pings, { width, ...period(pings, hours) });
    });
    return () => {
      isCancelled = true;
      plot?.destroy();
    };
  }, [pings[0]?.ping_seq, pings.length, hours, width, theme]);
  return html`<div class="plot" role="img" aria-label=${label} ref=${container}></div>`;
}

/** A number that changes with the theme, so that the canvas is drawn again in its colours. */
function useThemeChanges() {
  const [changes, setChanges] = useState(0);
  useEffect(() => {
    const bump = () => setChanges((times) => times + 1);
    const system = matchMedia("(prefers-color-scheme: dark)");
    addEventListener("themechange", bump);
    system.addEventListener("change", bump);
    return () => {
      removeEventListener("themechange", bump);
      system.removeEventListener("change", bump);
    };
  }, []);
  return changes;
}
