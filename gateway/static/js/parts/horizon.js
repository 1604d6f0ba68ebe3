/**
 * The timeline of next pings: each agent is a dot that moves towards "now" and jumps back when it is pinged.
 *
 * Healthy agents lie near the base interval; a failing one drifts outward with each poor ping, along a trail that begins
 * where it would be if it were well. The scale is logarithmic because intervals
 * differ by a factor of up to 96.
 */

import { trailOf } from "../fleet.js";
import { countdown, duration } from "../format.js";
import { classes, html, useEffect, useRef, useState } from "../preact.js";
import { go } from "../route.js";
import { useNow } from "../store.js";
import { status } from "../labels.js";
import { showTooltip } from "./tooltip.js";

const TICKS = [2, 5, 10, 30, 60, 300, 900, 1800, 3600, 10_800, 21_600, 43_200, 86_400];
const NEAR_SECONDS = 12; // dots this close to now are animated; animating all of them would cost too much
const LANES = 5;
const EDGE = 14; // pixels left free at both ends
const MAX_NAMED = LANES; // up to so many dots show their names, each in a lane of its own
const NAME_WIDTH = 130; // pixels

/** A function from seconds to a share of the width, 0 to 1. `end` is the time at the right edge, in seconds. */
export function scale(end) {
  const near = Math.min(10, end / 3);
  return (seconds) => Math.min(1, Math.log1p(Math.max(0, seconds) / near) / Math.log1p(end / near));
}

/** The lane of a dot. Few agents take lanes in turn; of many, each has a fixed lane by the hash of its id. */
const laneOf = (id, at, all) =>
  all <= MAX_NAMED ? at % LANES : [...id].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 9973, 7) % LANES;

/** `baseSeconds` is the interval of a host that is well: how far beyond it one is pinged is drawn as a trail. */
export function Horizon({ agents, baseSeconds }) {
  const { width, isSeen, frame } = useFrame();
  const now = useNow(isSeen);
  const dots = agents
    .filter((agent) => agent.next_ping_at)
    .sort((one, other) => (one.agent_id < other.agent_id ? -1 : 1))
    .map((agent) => ({ agent, left: (Date.parse(agent.next_ping_at) - now) / 1000 }));
  const longest = Math.max(6, ...dots.map((dot) => Math.max(dot.left, dot.agent.current_interval_minutes * 60)));
  const toShare = scale(longest);
  const x = (seconds) => EDGE + toShare(seconds) * (width - 2 * EDGE);
  return html`<section class="horizon" aria-label="When each agent is pinged next">
    <h2>Next pings</h2>
    <div class="horizon-frame" ref=${frame}>
      <div class="horizon-now"><span>now</span></div>
      ${ticks(longest, x).map((seconds) => html`<${Tick} key=${seconds} seconds=${seconds} x=${x(seconds)} />`)}
      ${
        width > 0 &&
        dots.map(({ agent }, at) => {
          const far = trailOf(agent, baseSeconds);
          const from = far && x(baseSeconds);
          return far && html`<i key=${agent.agent_id} data-trail=${agent.agent_id} class=${`trail lane-${laneOf(agent.agent_id, at, dots.length)} tone-${agent.status}`}
            style=${{ transform: `translateX(${Math.round(from)}px)`, width: `${Math.max(0, Math.round(x(far) - from))}px` }}></i>`;
        })
      }
      ${
        width > 0 &&
        dots.map(
          ({ agent, left }, at) => html`<${Mark}
        key=${agent.agent_id} agent=${agent} left=${left} x=${x(left)} lane=${laneOf(agent.agent_id, at, dots.length)}
        isNamed=${dots.length <= MAX_NAMED} isLast=${x(left) > width - NAME_WIDTH}
      />`,
        )
      }
    </div>
  </section>`;
}

/** The ticks that fit without overlapping each other or "now". */
function ticks(longest, x) {
  let last = x(0);
  return TICKS.filter((seconds) => {
    const isClear = seconds <= longest && x(seconds) - last > 64;
    if (isClear) last = x(seconds);
    return isClear;
  });
}

const Tick = ({ seconds, x }) =>
  html`<div class="horizon-tick" style=${{ transform: `translateX(${x}px)` }}><span>${duration(seconds)}</span></div>`;

function Mark({ agent, left, x, lane, isNamed, isLast }) {
  const { name, label } = status(agent.status);
  const when = left > 0 ? `pinged in ${countdown(left)}` : "due now";
  const note = html`<div><strong>${agent.agent_id}</strong><div>${label}</div><div>${when}</div></div>`;
  const point = (event) => {
    const area = event.currentTarget.getBoundingClientRect();
    showTooltip(note, area.left + area.width / 2, area.top);
  };
  const names = { mark: true, [`lane-${lane}`]: true, "is-due": left <= 0, "is-near": left < NEAR_SECONDS, "is-failing": agent.consecutive_poor_uptime > 0 };
  return html`<div
    class=${classes({ ...names, "is-last": isNamed && isLast })}
    style=${{ transform: `translateX(${Math.round(x)}px)` }}
    onPointerEnter=${point} onPointerLeave=${() => showTooltip(null)} onClick=${() => go({ agent: agent.agent_id }, { step: true })}
  ><i class="dot tone-${name}"></i><i key=${agent.last_ping_at} class="ring tone-${name}"></i>${isNamed && html`<span>${agent.agent_id}</span>`}</div>`;
}

/** The element of the timeline, its width, and whether it is on the screen. */
function useFrame() {
  const [width, setWidth] = useState(0);
  const [isSeen, setSeen] = useState(true);
  const frame = useRef();
  useEffect(() => {
    const sizes = new ResizeObserver(([entry]) => setWidth(entry.contentRect.width));
    const sights = new IntersectionObserver((entries) => setSeen(entries.at(-1).isIntersecting));
    sizes.observe(frame.current);
    sights.observe(frame.current);
    return () => {
      sizes.disconnect();
      sights.disconnect();
    };
  }, []);
  return { width, isSeen, frame };
}
