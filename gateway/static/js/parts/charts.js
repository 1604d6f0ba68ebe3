/** Uptime and response time of an agent over a period, drawn by uPlot, which is loaded on first use. */

import { formatFullTime, NOTHING, percent, plural, zone } from "../format.js";
import { html, useEffect, useRef, useState } from "../preact.js";
import { PERIODS } from "./periods.js";
import { responseChart, uptimeChart } from "./plots.js";

export function Charts({ series, period, setPeriod, agent }) {
  const { answer, problem } = series;
  const isCurrent = answer?.period === period;
  const value = percent(isCurrent ? answer.uptime_percent : null);
  return html`<section class="block" aria-label="Uptime">
    <div class="block-head">
      <h2>Uptime <span class="quiet" data-name="period-uptime">${headline(answer, isCurrent, problem, value)}</span></h2>
      <div class="periods" role="group" aria-label="Period">${PERIODS.map(
        ({ name, label }) => html`<button
        key=${name} type="button" data-period=${name}
        aria-pressed=${name === period ? "true" : "false"} onClick=${() => setPeriod(name)}
      >${label}</button>`,
      )}</div>
    </div>
    ${problem && html`<p class="problem" role="alert">The chart could not be read: ${problem}</p>`}
    ${isCurrent && html`<${Plots} answer=${answer} />`}
    ${agent?.status === "missing" && html`<p class="note">The time since the last answer is not drawn, because the host has not reported it; it counts against the figure.</p>`}
  </section>`;
}

function headline(answer, isCurrent, problem, value) {
  if (problem && !isCurrent) return "not known now";
  if (!isCurrent) return "";
  if (value === NOTHING) return "not judged yet";
  const { pings } = answer;
  return `${value} over ${plural(pings, "ping")}`;
}

function Plots({ answer }) {
  const of = `${plural(answer.pings, "ping")} in ${plural(answer.buckets.length, "part")}`;
  return html`<${Plot} draw=${uptimeChart} answer=${answer}
      label=${`Uptime from ${formatFullTime(answer.since)} to ${formatFullTime(answer.until)}, ${of}; the table below holds the pings`} />
    <h3 class="quiet">Response time <span>median and 95 in 100</span></h3>
    <${Plot} draw=${responseChart} answer=${answer} label=${`Response time in milliseconds, ${of}`} />
    <p class="note zone">Times: ${zone()}${answer.period === "month" ? "; the month is that of UTC, as in statements" : ""}.</p>`;
}

/** The time range of the x axis in seconds: that of the question, at least a minute. */
export function rangeOf(answer) {
  const until = Date.parse(answer.until) / 1000;
  return { since: Math.min(Date.parse(answer.since) / 1000, until - 60), until };
}

function Plot({ draw, answer, label }) {
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
      plot = draw(UPlot, container.current, answer.buckets, { width, ...rangeOf(answer) });
    });
    return () => {
      isCancelled = true;
      plot?.destroy();
    };
  }, [answer, width, theme]);
  return html`<div class="plot" role="img" aria-label=${label} data-buckets=${answer.buckets.length} data-pings=${answer.pings} ref=${container}></div>`;
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
