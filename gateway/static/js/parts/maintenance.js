/**
 * Booked maintenance of an agent: what is going on, to come, and over in this month. Operators book and cancel here;
 * whoever may not is shown no button.
 */

import * as api from "../api.js";
import { asField, duration, formatTime, fromField, zone } from "../format.js";
import { inOrder, isOn, whenWords } from "../bookings.js";
import { classes, html, useEffect, useState } from "../preact.js";
import { serverNow, useNow } from "../store.js";
import { Glyph } from "./glyph.js";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

/** `{ bookings, reload }`: the bookings of the agent, past and to come, asked again after each return of the gateway. */
export function useBookings(id, returns) {
  const [bookings, setBookings] = useState([]);
  const [round, setRound] = useState(0);
  useEffect(() => {
    let isWanted = true;
    api.bookings(id).then(
      (answer) => isWanted && setBookings(answer.bookings),
      () => {}, // a removed agent has none
    );
    return () => {
      isWanted = false;
    };
  }, [id, returns, round]);
  return { bookings, reload: () => setRound((before) => before + 1) };
}

export function Maintenance({ agent, mayBook, returns }) {
  const id = agent.agent_id;
  const now = useNow();
  // its status changes when a booking begins or ends, also one that somebody else made
  const { bookings, reload } = useBookings(id, `${returns} ${agent.status}`);
  const [isOpen, setOpen] = useState(false);
  const shown = inOrder(bookings, now);
  if (shown.length === 0 && !mayBook) return null;
  const done = () => {
    setOpen(false);
    reload();
  };
  return html`<section class="block maintenance" aria-labelledby="maintenance-title">
    <div class="block-head">
      <h2 id="maintenance-title">Maintenance ${shown.length === 0 && html`<span class="quiet">none is booked</span>`}</h2>
      ${mayBook && html`<button type="button" class="book" aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>${isOpen ? "Close" : "Book"}</button>`}
    </div>
    ${isOpen && html`<${BookForm} id=${id} onDone=${done} />`}
    ${shown.length > 0 && html`<ul class="bookings">${shown.map(
      (one) => html`<${Booking} key=${one.booking_id} one=${one} now=${now} mayCancel=${mayBook} onDone=${reload} />`,
    )}</ul>`}
  </section>`;
}

function Booking({ one, now, mayCancel, onDone }) {
  const [isAsked, setAsked] = useState(false);
  const [isBusy, setBusy] = useState(false);
  const [problem, setProblem] = useState(null);
  const isOver = Date.parse(one.until) <= now;
  const cancel = async () => {
    setBusy(true);
    setProblem(null);
    try {
      await api.cancelMaintenance(one.booking_id);
      onDone();
    } catch (error) {
      setProblem(error.message);
    } finally {
      setBusy(false);
      setAsked(false);
    }
  };
  const length = (Date.parse(one.until) - Date.parse(one.since)) / 1000;
  const shared = one.agent_ids.length > 1 ? `, with ${one.agent_ids.length - 1} more` : "";
  return html`<li class=${classes({ booking: true, "tone-maintenance": !isOver, "is-over": isOver })} data-booking=${one.booking_id}>
    <${Glyph} name="maintenance" />
    <div>
      <p><b>${one.reason}</b> <span class="quiet">${whenWords(one, now)}</span></p>
      <p class="note">${formatTime(one.since)} to ${formatTime(one.until)}, ${duration(length)}${shared}${one.author ? `, by ${one.author}` : ""}</p>
      <p class="problem" role="alert">${problem}</p>
    </div>
    ${
      mayCancel &&
      !isOver &&
      html`<div class="booking-actions">${
        isAsked
          ? html`<button type="button" disabled=${isBusy} onClick=${cancel}>${isOn(one, now) ? "End it now" : "Cancel it"}</button>
              <button type="button" onClick=${() => setAsked(false)}>Keep</button>`
          : html`<button type="button" aria-label=${`Cancel ${one.reason}`} onClick=${() => setAsked(true)}>Cancel</button>`
      }</div>`
    }
  </li>`;
}

function BookForm({ id, onDone }) {
  const [isBusy, setBusy] = useState(false);
  const [problem, setProblem] = useState(null);
  const begin = Math.ceil((serverNow() + 5 * MINUTE_MS) / (15 * MINUTE_MS)) * 15 * MINUTE_MS;
  const [first] = useState({ since: asField(begin), until: asField(begin + 2 * HOUR_MS) });
  const submit = async (event) => {
    event.preventDefault();
    const data = new FormData(event.target);
    const [since, until] = [fromField(data.get("since")), fromField(data.get("until"))];
    if (!(until > since)) {
      setProblem("It ends before it begins.");
      return;
    }
    setBusy(true);
    setProblem(null);
    try {
      await api.bookMaintenance({ agent_id: id, since: iso(since), until: iso(until), reason: data.get("reason").trim() });
      onDone();
    } catch (error) {
      setProblem(error.message);
    } finally {
      setBusy(false);
    }
  };
  return html`<form class="book-form" onSubmit=${submit}>
    <label>From <input type="datetime-local" name="since" value=${first.since} required /></label>
    <label>To <input type="datetime-local" name="until" value=${first.until} required /></label>
    <label class="book-reason">Reason <input name="reason" required maxlength="500" autocomplete="off" placeholder="new fans" /></label>
    <div class="book-end">
      <button class="primary" disabled=${isBusy}>${isBusy ? "Booking" : "Book maintenance"}</button>
      <p class="note">In ${zone()}, and ahead of time. The host is pinged meanwhile and not judged; its time is excused.</p>
    </div>
    <p class="problem" role="alert">${problem}</p>
  </form>`;
}

const iso = (milliseconds) => new Date(milliseconds).toISOString();
