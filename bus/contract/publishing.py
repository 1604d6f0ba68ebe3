"""What is shown to people who do not sign in: status pages, badges, and a host's own view."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from bus.contract.labels import Label
from bus.contract.messages import AgentId, Message, Timestamp, check_timestamps
from bus.contract.subjects import END, STATUS_PAGE_NAME_PATTERN

MAX_HOSTS = 200  # of one status page
MAX_PAGES = 50  # of one fleet: all of them are one value of the bucket
STATUS_DAYS = 90
INCIDENT_DAYS = 14
PUBLIC_NAME = "public_name"  # the label whose value status pages and badges show as a host's name
SILENT = "no-answer"  # the reason of an incident in which a host did not answer
MAX_VALID_SECONDS = 400 * 86_400

PageName = Annotated[str, Meta(pattern=STATUS_PAGE_NAME_PATTERN)]
PageTitle = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{1,120}" + END)]
PageAgents = Annotated[tuple[AgentId, ...], Meta(max_length=MAX_HOSTS)]
LinkKind = Literal["badge", "host"]
ShownName = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{1,60}" + END)]
ValidSeconds = Annotated[int, Meta(ge=60, le=MAX_VALID_SECONDS)]


class StatusPage(Message, kw_only=True, frozen=True):
    """A public page: of the agents that it names, or of all that have a label at the moment.

    Hosts are shown by their label `public_name`, else as "Host 1", "Host 2" and so on. With
    `show_ids` the agents' ids are shown, too.
    """

    name: PageName
    title: PageTitle
    agents: PageAgents = ()
    label: Label | None = None
    show_ids: bool = False
    author: str = ""
    changed_at: Timestamp | None = None

    def __post_init__(self) -> None:
        check_timestamps(self.changed_at)
        if bool(self.agents) == (self.label is not None):
            raise ValueError("expected either agents or a label")
        if len(set(self.agents)) < len(self.agents):
            raise ValueError("an agent is named twice")


class AddStatusPage(Message, kw_only=True, frozen=True):
    """Adds a page; with `replace` also in the place of one of that name."""

    page: StatusPage
    replace: bool = False
    author: str = ""
    address: str | None = None


class RemoveStatusPage(Message, kw_only=True, frozen=True):
    """Takes a page away."""

    name: PageName
    author: str = ""
    address: str | None = None


class StatusPages(Message, kw_only=True, frozen=True):
    """`status-pages`: the pages, in the order of their names."""

    pages: tuple[StatusPage, ...]


class MakeLink(Message, kw_only=True, frozen=True):
    """Asks for a link that needs no login: to an agent's badge, or to its host's own view.

    `valid_seconds` is None for one that does not expire, which only a badge may. `shown_name` is
    what a badge says instead of the host's public name.
    """

    kind: LinkKind
    agent_id: AgentId
    valid_seconds: ValidSeconds | None = None
    shown_name: ShownName | None = None
    author: str = ""
    address: str | None = None

    def __post_init__(self) -> None:
        if self.kind == "host" and self.valid_seconds is None:
            raise ValueError("a link to a host's own view expires: expected valid_seconds")


class Link(Message, kw_only=True, frozen=True):
    """A link: its secret, its path at the gateway, and until when it is good.

    `url` is the whole address, where GATEWAY_PUBLIC_URL says it.
    """

    kind: LinkKind
    agent_id: str
    path: str
    expires_at: datetime | None = None
    url: str | None = None


class RevokeLinks(Message, kw_only=True, frozen=True):
    """Refuses every link that was made so far: of one agent, or of all."""

    agent_id: AgentId | None = None
    author: str = ""
    address: str | None = None


class RevokedLinks(Message, kw_only=True, frozen=True):
    """`links.<id>`: links of this agent that were made before are refused. Also the reply."""

    agent_id: str | None
    made_before: Timestamp

    def __post_init__(self) -> None:
        check_timestamps(self.made_before)


class LinkKeyRequest(Message, kw_only=True, frozen=True):
    """Asks for the key of links, and which links of an agent are refused."""

    agent_id: AgentId | None = None


class LinkKey(Message, kw_only=True, frozen=True):
    """`link-key`: the key that seals links (base64). `revoked_before`: of the agent asked for."""

    key: str
    revoked_before: Timestamp | None = None


class Conditions(Message, kw_only=True, frozen=True):
    """What every host is held to: the scheduler's policy."""

    threshold_percent: float
    base_interval_minutes: float
    multiplier: float
    max_interval_minutes: float
    recovery_pings: int


def link_path(kind: LinkKind, secret: str) -> str:
    """Where the gateway answers a link."""
    if kind == "badge":
        return f"/badge/{secret}.svg"
    return f"/host/{secret}"


class HostDaysRequest(Message, kw_only=True, frozen=True):
    """Asks for the days (UTC) up to the one of `until`, and the newest days' incidents.

    `enrolled_since` has the first registration of agents; what a window tells of the time before
    it is left out, as statements do.
    """

    agent_ids: Annotated[tuple[AgentId, ...], Meta(max_length=MAX_HOSTS)]
    until: Timestamp
    days: Annotated[int, Meta(ge=1, le=366)] = STATUS_DAYS
    incident_days: Annotated[int, Meta(ge=0, le=366)] = INCIDENT_DAYS
    enrolled_since: dict[str, Timestamp] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_timestamps(self.until)


class HostDay(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A host's day. Time that nobody reported is lost, as down and unknown time is."""

    day: str
    up_seconds: float = 0.0
    lost_seconds: float = 0.0
    excused_seconds: float = 0.0

    @property
    def uptime_percent(self) -> float | None:
        """Of the judged time; None where nothing was judged."""
        judged = self.up_seconds + self.lost_seconds
        if judged <= 0:
            return None
        return 100.0 * self.up_seconds / judged


class HostIncident(Struct, kw_only=True, frozen=True):
    """A time in which a host was not up and healthy. `gpus` is how many of its GPUs; 0: all of it.

    `until` is None while it goes on. Two or more pings in a row without an answer are an incident
    of the state `missing`.
    """

    state: str
    reason: str
    since: datetime
    until: datetime | None
    gpus: int


class HostDays(Struct, kw_only=True, frozen=True):
    """A host's days, oldest first, those without any time left out; and its incidents."""

    agent_id: str
    days: tuple[HostDay, ...]
    incidents: tuple[HostIncident, ...]


class HostDaysReply(Message, kw_only=True, frozen=True):
    """The hosts that have history, in the order that they were asked for."""

    hosts: tuple[HostDays, ...]
