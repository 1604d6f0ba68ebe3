/**
 * The gateway's REST interface. Addresses are relative, so that the page also works below a path prefix of a proxy.
 */

/**
 * An error response of the gateway, or no response: `status` is then 0. `message` is a sentence for people, `document`
 * the problem document where there is one.
 */
export class Problem extends Error {
  constructor(status, message, document = null) {
    super(message);
    this.status = status;
    this.document = document;
  }
}

async function problemOf(response) {
  const document = await response.json().catch(() => null);
  const sentence = document?.detail || document?.title || `The gateway answered ${response.status}.`;
  return new Problem(response.status, asSentence(sentence), document);
}

/** The text with a capital letter at its beginning and a full stop at its end. */
export function asSentence(text) {
  const trimmed = text.trim();
  const first = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

/** The JSON response, or null for a 204. Throws a Problem, or the AbortError of an aborted request. */
async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { headers: { Accept: "application/json" }, credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The gateway does not answer.");
  }
  if (!response.ok) throw await problemOf(response);
  return response.status === 204 ? null : response.json();
}

const agentPath = (id, rest = "") => `ping-system/agents/${encodeURIComponent(id)}${rest}`;

const FIRST_ROWS = 30; // as many as a large screen shows: their outcomes come with the dashboard's response

export const dashboard = (beats = FIRST_ROWS) => request(`ping-system/dashboard?beats=${beats}`);
export const beats = (ids) => request(`ping-system/beats?agents=${ids.join(",")}`);
export const agent = (id) => request(agentPath(id));
export const agents = (query) => request(`ping-system/agents?${new URLSearchParams(query)}`);
export const history = (id, query) => request(agentPath(id, `/history?${new URLSearchParams(query)}`));
export const series = (id, query) => request(agentPath(id, `/series?${new URLSearchParams(query)}`));
export const explanation = (id, month) => request(agentPath(id, `/explanation?month=${month}`));
export const timeline = (id, query) => request(agentPath(id, `/timeline?${new URLSearchParams(query)}`));
export const bookings = (id) => request(`ping-system/maintenance?${new URLSearchParams({ agent_id: id, past: "true" })}`);
export const bookMaintenance = (body) => post("ping-system/maintenance", body);
export const cancelMaintenance = (bookingId) =>
  request(`ping-system/maintenance/${encodeURIComponent(bookingId)}`, { method: "DELETE" });
export const alerts = () => request("ping-system/alerts?limit=50");
export const statementLink = (id, month, format) => agentPath(id, `/report?month=${month}&format=${format}`);
export const evidenceLink = (id, hours) => agentPath(id, `/history?hours=${hours}&evidence=true`);
export const gpuStatus = (id, options) => request(agentPath(id, "/gpu-status"), options);
export const pingNow = (id) => request(agentPath(id, "/ping"), { method: "POST" });
export const exportLink = (id, hours, format) => agentPath(id, `/history?hours=${hours}&format=${format}`);

const post = (path, body) =>
  request(path, {
    method: "POST",
    headers: { Accept: "application/json", "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });

export const chosenAgents = (ids, query) => post(`ping-system/chosen-agents?${new URLSearchParams(query)}`, { agent_ids: ids });
export const caller = () => request("ping-system/caller");
export const offerEnrolment = (body) => post("ping-system/enrolments", body);
export const logout = () => request("logout", { method: "POST" });
export const login = (token) => post("login", { token });
