/** Uptime and response time of an agent over a period, drawn by uPlot, which is loaded on first use. */

import { asField, formatFullTime, fromField, nameOfMonth, plural, zone } from "../format.js";
import { html, useEffect, useRef, useState } from "../preact.js";
import { go } from "../route.js";
import { serverNow } from "../store.js";
import { useZone } from "../zone.js";
import { Figure, judgedSeconds } from "./figure.js";
import { customText, monthsBetween, PERIODS, textOf } from "./periods.js";
import { responseChart, uptimeChart } from "./plots.js";

export function Charts({ series, period, agent }) {
  const { answer, problem } = series;
  const isCurrent = answer?.text === period.text;
  const choose = (name) => go({ period: textOf(name, period, serverNow()) });
  return html`<section class="block" aria-label="Uptime">
    <div class="block-head">
      <h2>Uptime <span class="quiet" data-name="period-uptime">${headline(answer, isCurrent, problem)}</span></h2>
      <div class="periods" role="group" aria-label="Period">${PERIODS.map(
        ({ name, label }) => html`<button
        key=${name} type="button" data-period=${name}
        aria-pressed=${name === period.name ? "true" : "false"} onClick=${() => choose(name)}
      >${label}</button>`,
      )}</div>
    </div>
    ${period.name === "month" && html`<${MonthChoice} shown=${period.text} since=${agent?.registered_at} />`}
    ${period.name === "custom" && html`<${FromTo} key=${period.text} period=${period} />`}
    ${problem && html`<p class="problem" role="alert">The chart could not be read: ${problem}</p>`}
    ${isCurrent && html`<${Plots} answer=${answer} period=${period} />`}
    ${period.isOpen && agent?.status === "missing" && html`<p class="note">The time since the last answer is not drawn, because the host has not reported it; it counts against the figure.</p>`}
  </section>`;
}

function headline(answer, isCurrent, problem) {
  if (problem && !isCurrent) return "not known now";
  if (!isCurrent) return "";
  if (answer.uptime_percent == null) return answer.pings > 0 ? "not judged" : "no ping in this period";
  return html`<${Figure} percent=${answer.uptime_percent} rests=${judgedSeconds(answer.seconds, answer.unreported_seconds)} /> over ${plural(answer.pings, "ping")}`;
}

function MonthChoice({ shown, since }) {
  const now = serverNow();
  const months = monthsBetween(since ? Date.parse(since) : now, now);
  if (!months.includes(shown)) months.push(shown);
  return html`<label class="period-choice">Month, of UTC
    <select value=${shown} onChange=${(event) => go({ period: event.target.value })}>
      ${months.map((month) => html`<option key=${month} value=${month} selected=${month === shown}>${nameOfMonth(month)}</option>`)}
    </select></label>`;
}

/** Two times, in the zone that the page shows. */
function FromTo({ period }) {
  const [problem, setProblem] = useState(null);
  useZone();
  const show = (event) => {
    event.preventDefault();
    const fields = new FormData(event.target);
    const [since, until] = ["since", "until"].map((name) => fromField(fields.get(name)));
    if (!(until - since >= 60_000)) return setProblem("The end has to be at least a minute after the beginning.");
    if (since < 0) return setProblem("The beginning lies before 1970.");
    if (since >= serverNow()) return setProblem("The beginning lies in the future.");
    setProblem(null);
    return go({ period: customText(since, until) });
  };
  return html`<form class="period-choice" onSubmit=${show}>
    <label>From <input type="datetime-local" name="since" required defaultValue=${asField(period.since)} /></label>
    <label>to <input type="datetime-local" name="until" required defaultValue=${asField(period.until)} /></label>
    <button>Show</button> <span class="quiet">${zone()}</span>
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
  </form>`;
}

function Plots({ answer, period }) {
  const of = `${plural(answer.pings, "ping")} in ${plural(answer.buckets.length, "part")}`;
  return html`<${Plot} draw=${uptimeChart} answer=${answer}
      label=${`Uptime from ${formatFullTime(answer.since)} to ${formatFullTime(answer.until)}, ${of}; the table below holds the pings`} />
    <h3 class="quiet">Response time <span>median and 95 in 100</span></h3>
    <${Plot} draw=${responseChart} answer=${answer} label=${`Response time in milliseconds, ${of}`} />
    <p class="note zone">${formatFullTime(answer.since)} to ${formatFullTime(answer.until)}. Times: ${zone()}${period.name === "month" ? "; the month is that of UTC, as in statements" : ""}.</p>`;
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
  const zoneChanges = useZone();
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
  }, [answer, width, theme, zoneChanges]);
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
