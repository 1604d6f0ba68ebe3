/** "Add a host": the one command with which a new GPU host joins. Shown to those who may let hosts in. */

import * as api from "../api.js";
import { duration } from "../format.js";
import { classes, html, useEffect, useState } from "../preact.js";
import { ID_PATTERN } from "../route.js";
import { useNow } from "../store.js";
import { Copyable } from "./copyable.js";

const dialog = () => document.querySelector("#add-host");

/**
 * Who looks: `{ mayChange, busUrl }`, whether they may let hosts in and ping by hand, and where hosts reach the bus. Both
 * are null until that is known. `returns` counts how often the gateway came back: what failed meanwhile is asked again.
 */
export function useCaller(phase, returns) {
  const [caller, setCaller] = useState({ mayChange: null, busUrl: null });
  useEffect(() => {
    if (phase !== "ready") return;
    api.caller().then(
      ({ role, bus_url: busUrl }) => setCaller({ mayChange: role !== "viewer", busUrl }),
      () => setCaller({ mayChange: false, busUrl: null }), // the gateway says no to whoever asks anyway
    );
  }, [phase, returns]);
  return caller;
}

export const AddHostButton = () => html`<button type="button" class="add-host" onClick=${() => dialog()?.showModal()}>Add a host</button>`;

export function AddHostDialog() {
  const [round, setRound] = useState(0); // a command that was shown once is not shown again
  return html`<dialog id="add-host" aria-labelledby="add-host-title" onClose=${() => setRound(round + 1)}
    onClick=${(event) => event.target.id === "add-host" && event.target.close()}>
    <div class="dialog-body">
      <h2 id="add-host-title">Add a GPU host</h2>
      <${NewHost} key=${round} />
      <button type="button" onClick=${() => dialog().close()}>Close</button>
    </div>
  </dialog>`;
}

/** Asks for an id, then shows the command. */
export function NewHost() {
  const [offer, setOffer] = useState(null);
  const [problem, setProblem] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    const id = new FormData(event.target).get("agent_id").trim();
    setBusy(true);
    setProblem(null);
    try {
      setOffer(await api.offerEnrolment(id ? { agent_id: id } : {}));
    } catch (error) {
      setProblem(error.message);
    } finally {
      setBusy(false);
    }
  };
  if (offer) return html`<${Offer} offer=${offer} onAgain=${() => setOffer(null)} />`;
  return html`<form class="new-host" onSubmit=${submit}>
    <label><span class="label-line">Name <span class="quiet">its host name, if left empty</span></span>
      <input name="agent_id" pattern=${ID_PATTERN} maxlength="63" autocomplete="off" autocapitalize="off" spellcheck=${false}
        placeholder="gpu-host-1" title="Letters, digits, _ and -, beginning with a letter or digit" /></label>
    <button class="primary" disabled=${isBusy}>${isBusy ? "Making it" : "Make the command"}</button>
    <p class="problem" role="alert">${problem}</p>
  </form>`;
}

function Offer({ offer, onAgain }) {
  const now = useNow();
  const left = (Date.parse(offer.expires_at) - now) / 1000;
  const isOver = left <= 0;
  return html`<div class="offer">
    <p>Run this on the host, where gpuping is installed. It makes its own keys, joins, and is pinged within seconds.</p>
    ${!isOver && html`<${Copyable} label="the command for the host" text=${offer.command} />`}
    <p class=${classes({ note: true, problem: isOver })} role="status">${
      isOver ? "The command has expired." : `Lets one host in, once. Expires in ${duration(left)}. It is a secret, and not shown again.`
    }</p>
    ${
      offer.only_here &&
      html`<p class="note">This bus listens on loopback, so only this machine can join. For others, make its certificate
        with <code>gpuping creds init --tls-names NAME</code> and start it with <code>NATS_HOST=0.0.0.0</code>.</p>`
    }
    <button type="button" onClick=${onAgain}>Another host</button>
  </div>`;
}
