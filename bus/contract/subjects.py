"""Every subject, bucket, stream and key of the system, built from validated ids.

No other file spells a subject: tests/unit/test_subject_literals.py reads the product's sources for
it.

No stream and no wildcard subscriber may ever cover `gpuping.ping.>`. A stream would acknowledge the
ping itself, as if the agent had answered; a subscriber would hide from the server that no agent
listens.
"""

import re

from bus.errors import BadMessageError

END = r"$(?!\n)"  # ends a pattern: `$` alone would also match before a newline
AGENT_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}" + END
STATUS_PAGE_NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}" + END
RESERVED_IDS = frozenset({"register", "due-for-ping"})  # they are paths of the REST interface
_AGENT_ID = re.compile(AGENT_ID_PATTERN)

AGENTD_SERVICE = "gpuping-agentd"
SCHEDULER_SERVICE = "gpuping-scheduler"
STORAGE_SERVICE = "gpuping-storage"
ENROLMENT_SERVICE = "gpuping-enrolment"
ALERTS_SERVICE = "gpuping-alerts"

BUCKET = "gpuping"
BUCKET_STREAM = f"KV_{BUCKET}"
KEYS = f"$KV.{BUCKET}."
HISTORY_STREAM = "GPUPING_HISTORY"
HISTORY_PREFIX = "gpuping.history."
DUE_CONSUMER = "scheduler"
AUDIT_STREAM = "GPUPING_AUDIT"
AUDIT_ALL = "gpuping.audit.*"
ALERTS_BUCKET = "gpuping_alerts"
ALERTS_STREAM = f"KV_{ALERTS_BUCKET}"
ALERTS_KEYS = f"$KV.{ALERTS_BUCKET}."
ALERTS_POSITION = f"{ALERTS_KEYS}position"  # how far the history was looked through

REGISTER_PREFIX = "gpuping.registry.register."
REGISTER_ALL = f"{REGISTER_PREFIX}*"
ENROL_ALL = "gpuping.registry.enrol.*"
BOOK_MAINTENANCE = "gpuping.registry.maintenance.book"
CANCEL_MAINTENANCE = "gpuping.registry.maintenance.cancel"
LIST_MAINTENANCE = "gpuping.registry.maintenance.list"
REMOVE_ALL = "gpuping.registry.remove.*"
GET_ALL = "gpuping.registry.get.*"
EXPECTED_GPUS_ALL = "gpuping.registry.expected-gpus.*"
EXPECT_GPUS_ALL = "gpuping.registry.expect-gpus.*"
LABELS_ALL = "gpuping.registry.labels.*"
ADD_STATUS_PAGE = "gpuping.registry.status-page.add"
REMOVE_STATUS_PAGE = "gpuping.registry.status-page.remove"
LIST_STATUS_PAGES = "gpuping.registry.status-page.list"
MAKE_LINK = "gpuping.registry.link.make"
REVOKE_LINKS = "gpuping.registry.link.revoke"
LINK_KEY = "gpuping.registry.link.key"
CONDITIONS = "gpuping.registry.conditions"
BRIDGE_ALL = "gpuping.registry.bridge.*"
LIST = "gpuping.registry.list"
FLEET = "gpuping.scheduler.fleet"
PING_NOW_ALL = "gpuping.scheduler.ping.*"
FLEET_MAP = "gpuping.scheduler.fleet-map"
STATS = "gpuping.scheduler.stats"
MAKE_CONSUMER = "gpuping.scheduler.make-consumer"  # for services that may not make one themselves
KEEP_ENROLMENT = "gpuping.scheduler.keep-enrolment"  # for the enrolment service
CLOSE_CONNECTIONS = "gpuping.scheduler.close-connections"  # of a host; for the enrolment service
ALIVE_ALL = "gpuping.scheduler.alive.*"

HISTORY_ALL = "gpuping.storage.history.*"
SERIES_ALL = "gpuping.storage.series.*"
EXPLANATION_ALL = "gpuping.storage.explanation.*"
TIMELINE_ALL = "gpuping.storage.timeline.*"
EXPORT_ALL = "gpuping.storage.export.*"
UPTIMES = "gpuping.storage.uptimes"
FLEET_UPTIMES = "gpuping.storage.fleet-uptimes"
BEATS = "gpuping.storage.beats"
HOST_DAYS = "gpuping.storage.host-days"
OVERVIEW = "gpuping.storage.overview"
STATEMENT_ALL = "gpuping.storage.report.*"
REPLAY = "gpuping.storage.replay"
TABLE = "gpuping.storage.table"
STORAGE_STATS = "gpuping.storage.stats"
STORAGE_READY = "gpuping.storage.ready"

LIST_ALERTS = "gpuping.alerts.list"
TEST_ALERTS = "gpuping.alerts.test"
SILENCE_ALERTS = "gpuping.alerts.silence"
END_SILENCE = "gpuping.alerts.end-silence"
ALERTS_STATS = "gpuping.alerts.stats"

REDEEM = "gpuping.enrolment.redeem"  # of hosts whose agentd is older than the function `redeem`
REDEEM_PREFIX = f"{REDEEM}."
REDEEM_ALL = f"{REDEEM_PREFIX}*"
NEW_ENROLMENT = "gpuping.enrolment.new"
# as NEW_ENROLMENT, and such a token never takes the place of an agent that exists
NEW_HOST_ENROLMENT = "gpuping.enrolment.new-host"
RENEW_PREFIX = "gpuping.enrolment.renew."
ISSUED_CREDENTIALS = "gpuping.enrolment.issued"  # which agents were given credentials there
RENEW_ALL = f"{RENEW_PREFIX}*"

MICRO_PING = "$SRV.PING"  # every micro service on the bus answers
INBOX_PREFIX = "_INBOX"  # where a service receives the answers to its questions
# `_INBOX_<id>` is the inbox of an agent of before identities
_ANSWERED_PREFIXES = (f"{INBOX_PREFIX}.", f"{INBOX_PREFIX}_", "_R_.")

JETSTREAM_API = "$JS.API"
DISCOVERY_PREFIX = "$SRV."
INBOXES = (f"{INBOX_PREFIX}.", "_R_.")
# A request with one of these is answered by JetStream itself.
JETSTREAM_PREFIXES = (JETSTREAM_API, "$JS.", "$KV.", "gpuping.audit.")

CLAIMS_UPDATE = "$SYS.REQ.CLAIMS.UPDATE"  # of the system account: takes a changed account
CLAIMS_PACK = "$SYS.REQ.CLAIMS.PACK"  # of the system account: a server asks for what it missed
SYSTEM_INBOX = "$SYS._INBOX.>"  # of the system account: where servers hear the answers

# of the system account: asks every server what JetStream holds there
SERVER_JETSTREAM = "$SYS.REQ.SERVER.PING.JSZ"
# of the system account: asks every server whether it is healthy
SERVER_HEALTH = "$SYS.REQ.SERVER.PING.HEALTHZ"

EVENT_ALL = "gpuping.event.*"
SESSION_ENDED = "gpuping.gateway.session-ended"  # gateways tell each other who signed out
BRIDGE_CLAIM = "gpuping.gateway.bridge-claim"  # gateways tell each other which ping each is at
BRIDGE_GROUP = "bridge"  # the queue group in which gateways hear the pings of agents with HTTP only


def check_agent_id(agent_id: str) -> str:
    """Returns a valid id unchanged. Raises BadMessageError, which says what an id looks like."""
    if not _AGENT_ID.fullmatch(agent_id):
        raise BadMessageError(
            f"agent id {agent_id[:80]!r} is not valid: "
            "use 1 to 63 of A-Z a-z 0-9 _ -, beginning with a letter or digit"
        )
    if agent_id in RESERVED_IDS:
        raise BadMessageError(f"agent id {agent_id!r} is reserved: choose another")
    return agent_id


def last_token(subject: str) -> str:
    """The agent id that ends a subject. Raises BadMessageError when it is not a valid one."""
    token = subject.rpartition(".")[2]
    return check_agent_id(token)


def ping(agent_id: str) -> str:
    """Asks an agent for its uptime report. Without a ping_id it is a look: nothing changes."""
    return f"gpuping.ping.{agent_id}"


def look(agent_id: str) -> str:
    """Asks an agent for a look, whatever the request says; anonymous requests arrive here."""
    return f"gpuping.look.{agent_id}"


def redeem(guest: str) -> str:
    """Subject on which a host asks for its enrolment token to be redeemed.

    `guest` is the token's user, so that it is known who floods the service.
    """
    return f"{REDEEM_PREFIX}{guest}"


def renew(agent_id: str) -> str:
    """Where an agent asks for new credentials before its own expire."""
    return f"gpuping.enrolment.renew.{agent_id}"


def gpu_status(agent_id: str) -> str:
    """Asks an agent for the details of its GPUs."""
    return f"gpuping.gpu-status.{agent_id}"


def health(agent_id: str) -> str:
    """Asks an agent about its own daemon."""
    return f"gpuping.health.{agent_id}"


def account_connect(account: str) -> str:
    """Of the system account: a server announces a connection of `account`."""
    return f"$SYS.ACCOUNT.{account}.CONNECT"


def account_disconnect(account: str) -> str:
    """Of the system account: a server announces the end of a connection of `account`."""
    return f"$SYS.ACCOUNT.{account}.DISCONNECT"


def close_connection(server_id: str) -> str:
    """Of the system account: asks a server to close one of its connections."""
    return f"$SYS.REQ.SERVER.{server_id}.KICK"


def account_connections(account: str) -> str:
    """Of the system account: asks every server for its connections of `account`."""
    return f"$SYS.REQ.ACCOUNT.{account}.CONNZ"


def register(agent_id: str) -> str:
    """Where an agent registers itself. The id is in the subject so that permissions can pin it."""
    return f"gpuping.registry.register.{agent_id}"


def enrol(agent_id: str) -> str:
    """Registers an agent in the operator's name, also one that was removed. Agents may not."""
    return f"gpuping.registry.enrol.{agent_id}"


def remove(agent_id: str) -> str:
    """Removes an agent from the registry; its history stays."""
    return f"gpuping.registry.remove.{agent_id}"


def get(agent_id: str) -> str:
    """Asks for one agent as the REST interface shows it."""
    return f"gpuping.registry.get.{agent_id}"


def expected_gpus(agent_id: str) -> str:
    """Asks which GPUs are expected of a host."""
    return f"gpuping.registry.expected-gpus.{agent_id}"


def expect_gpus(agent_id: str) -> str:
    """Changes which GPUs are expected of a host, in the operator's name."""
    return f"gpuping.registry.expect-gpus.{agent_id}"


def labels(agent_id: str) -> str:
    """Sets or removes labels of a host, in the operator's name."""
    return f"gpuping.registry.labels.{agent_id}"


def bridge(agent_id: str) -> str:
    """Notes whether an agent is asked by HTTP, by the gateways' bridge. Agents may not."""
    return f"gpuping.registry.bridge.{agent_id}"


def in_bridge_group(subject: str) -> str:
    """The permission to hear a subject in the bridge's queue group, and not otherwise."""
    return f"{subject} {BRIDGE_GROUP}"


def ping_now(agent_id: str) -> str:
    """Asks the scheduler to ping an agent at once; the outcome counts."""
    return f"gpuping.scheduler.ping.{agent_id}"


def of_every_instance(subject: str) -> str:
    """Where the same question is heard by every instance of the service, and not by one of them.

    The scheduler's are among those of the registry, which every role that asks it may ask.
    """
    _, service, question = subject.split(".", 2)
    if service == "scheduler":
        service = "registry"
    return f"gpuping.{service}.every.{question}"


def micro_ping(service: str) -> str:
    """Asks which instances of a micro service are on the bus."""
    return f"{MICRO_PING}.{service}"


def alive(instance: str) -> str:
    """On this subject a scheduler announces itself to the others."""
    return f"gpuping.scheduler.alive.{instance}"


def history(agent_id: str) -> str:
    """Asks storage for an agent's outcomes."""
    return f"gpuping.storage.history.{agent_id}"


def series(agent_id: str) -> str:
    """Asks storage for an agent's uptime in buckets, for charts."""
    return f"gpuping.storage.series.{agent_id}"


def export(agent_id: str) -> str:
    """Asks storage for an agent's outcomes as a file."""
    return f"gpuping.storage.export.{agent_id}"


def explanation(agent_id: str) -> str:
    """Asks storage why an agent's month is what it is."""
    return f"gpuping.storage.explanation.{agent_id}"


def timeline(agent_id: str) -> str:
    """Asks storage when each GPU of an agent was in which state."""
    return f"gpuping.storage.timeline.{agent_id}"


def statement(agent_id: str) -> str:
    """Asks storage for an agent's uptime statement."""
    return f"gpuping.storage.report.{agent_id}"


def file(instance: str, token: str) -> str:
    """Asks one storage process for a piece of a file that it has offered."""
    return f"gpuping.storage.file.{instance}.{token}"


def event(agent_id: str) -> str:
    """Live events of one agent. They are core messages: nothing depends on their arrival."""
    return f"gpuping.event.{agent_id}"


def audit(action: str) -> str:
    """Appends to the audit log what somebody did, such as `register` or `remove`."""
    return f"gpuping.audit.{action}"


def agent_key(agent_id: str) -> str:
    """Subject of an agent's registry entry."""
    return f"{KEYS}agent.{agent_id}"


def state_key(agent_id: str) -> str:
    """Subject of an agent's policy state and last outcome. Only outcomes are written here."""
    return f"{KEYS}state.{agent_id}"


def late_key(agent_id: str) -> str:
    """Subject of an agent's late answer to the ping that it missed last."""
    return f"{KEYS}late.{agent_id}"


def host_key(agent_id: str) -> str:
    """Subject of the public keys of an agent's host."""
    return f"{KEYS}host.{agent_id}"


def enrolment_key(token_hash: str) -> str:
    """Subject of an enrolment token that is not used yet, by its hash."""
    return f"{KEYS}enrolment.{token_hash}"


def enrolment_keys() -> str:
    """Subject filter of all enrolment tokens."""
    return f"{KEYS}enrolment.*"


def timer_key(agent_id: str) -> str:
    """Subject of the schedule of an agent's next ping."""
    return f"{KEYS}timer.{agent_id}"


def due_key(agent_id: str) -> str:
    """Subject on which an agent's timer fires."""
    return f"{KEYS}due.{agent_id}"


def status_pages_key() -> str:
    """Subject of the definitions of all status pages."""
    return f"{KEYS}status-pages"


def link_key() -> str:
    """Subject of the key that seals links for people who do not sign in."""
    return f"{KEYS}link-key"


def revoked_links_key(agent_id: str) -> str:
    """Subject of the moment before which an agent's links are refused."""
    return f"{KEYS}links.{agent_id}"


def condition_key(source: str, name: str) -> str:
    """Subject of the alert conditions of one thing, as one source of them sees it."""
    return f"{ALERTS_KEYS}condition.{source}.{name}"


def change_key(change_id: str) -> str:
    """Subject of a change that is still to be told."""
    return f"{ALERTS_KEYS}change.{change_id}"


def notification_key(notification_id: str) -> str:
    """Subject of a message to one target, and of how its sending goes."""
    return f"{ALERTS_KEYS}notification.{notification_id}"


def silence_key(silence_id: str) -> str:
    """Subject of a silence."""
    return f"{ALERTS_KEYS}silence.{silence_id}"


def jetstream_api(verb: str) -> str:
    """Subject of a call of the JetStream API, such as `STREAM.INFO.<stream>`."""
    return f"{JETSTREAM_API}.{verb}"


def inbox_prefix(agent_id: str) -> str:
    """Where an agent receives its answers: permissions can pin it to this prefix."""
    return f"{INBOX_PREFIX}.{agent_id}"


def earlier_inbox(agent_id: str) -> str:
    """The first token of every inbox of an agent of before identities."""
    return f"_INBOX_{agent_id}"


def service_inbox(service: str) -> str:
    """Where the connections of a service receive their answers. No agent id begins with `_`."""
    return f"{INBOX_PREFIX}._{service}"


def ping_inbox(instance: str) -> str:
    """Where the answers to one scheduler's pings arrive, as `<inbox>.<ping_id>`.

    It follows from the scheduler's name, with which ping ids begin, so that others can hear what
    comes after the scheduler is gone.
    """
    return f"{service_inbox('scheduler')}.ping.{instance}"


def is_inbox(reply: str) -> bool:
    """Whether an answer may be sent to this subject.

    Whoever asks chooses the reply subject, and the answer is sent with the rights of whoever
    answers. A key of the bucket, or a call of the JetStream API, is therefore never answered. The
    server itself makes subjects that begin with `_R_.`, for questions from another account.
    """
    return reply.startswith(_ANSWERED_PREFIXES)


def agent_connection(agent_id: str) -> str:
    """Connection name of an agent, as `nats server report connections` shows it."""
    return f"agentd:{agent_id}"
