"""What each role may publish and hear: one table, from which permissions, tests and docs are made.

Each role has a signing key of its own in the account, and the permissions stand with that key:
whoever holds it can make users of that role and of no other. `{{name()}}` is put in by the server:
the name of the user, which for an agent is its id. The minter must check names, because a user
named `*` would hear every agent. `{{tag(agent)}}` stands for every agent of a leaf node's site, so
that a site can neither hear nor answer for the agents of another.
"""

from typing import Literal

from msgspec import Struct

from bus.contract import subjects

RoleName = Literal[
    "agent",
    "scheduler",
    "storage",
    "gateway",
    "enrolment",
    "alerts",
    "bridge",
    "bootstrap",
    "layout",
    "operator",
    "leaf",
]

OWN_ID = "{{name()}}"
SITE_AGENT = "{{tag(agent)}}"  # each agent that a leaf node's credentials name
ANSWER_SECONDS = 60
_BUCKET = subjects.BUCKET_STREAM
_HISTORY = subjects.HISTORY_STREAM
_ALERTS = subjects.ALERTS_STREAM
_MICRO_VERBS = ("$SRV.PING", "$SRV.INFO", "$SRV.STATS")


class Role(Struct, frozen=True, kw_only=True):
    """The permissions of one kind of user.

    purpose: one sentence for docs/security.md.
    publish, subscribe: the subjects that are allowed; everything else is refused by the server.
    answers: how many messages it may send to the reply subject of one that it heard. Only agents
        have that right. It overrides the lists: a service that had it deleted the bucket for
        whoever asked with the deleting subject as the reply subject.
    max_payload: bytes of one message. max_subscriptions: of one connection. -1: as the server
        allows.
    has_own_account: it lives apart from the fleet's account, so that JetStream's answers to it
        cannot be led into that (bus/identity/accounts.py).
    """

    purpose: str
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    answers: int = 0
    max_payload: int = -1
    max_subscriptions: int = -1
    is_leaf: bool = False
    has_own_account: bool = False


def _micro_service(name: str) -> tuple[str, ...]:
    """What a NATS micro service listens to besides its endpoints."""
    heard = []
    for verb in _MICRO_VERBS:
        heard += [verb, f"{verb}.{name}", f"{verb}.{name}.*"]
    return tuple(heard)


_READ_STREAMS = (
    f"{subjects.JETSTREAM_API}.STREAM.INFO.{_BUCKET}",
    f"{subjects.JETSTREAM_API}.STREAM.INFO.{_HISTORY}",
    # The layout is checked by every service that starts; these two are a part of it.
    f"{subjects.JETSTREAM_API}.STREAM.INFO.{subjects.AUDIT_STREAM}",
    f"{subjects.JETSTREAM_API}.STREAM.INFO.{_ALERTS}",
    f"{subjects.JETSTREAM_API}.STREAM.MSG.GET.{_BUCKET}",
    f"{subjects.JETSTREAM_API}.STREAM.MSG.GET.{_HISTORY}",
    f"{subjects.JETSTREAM_API}.DIRECT.GET.{_BUCKET}",
    f"{subjects.JETSTREAM_API}.DIRECT.GET.{_BUCKET}.>",
    f"{subjects.JETSTREAM_API}.DIRECT.GET.{_HISTORY}",
    f"{subjects.JETSTREAM_API}.DIRECT.GET.{_HISTORY}.>",
)


_READ_AUDIT = (
    f"{subjects.JETSTREAM_API}.STREAM.INFO.{subjects.AUDIT_STREAM}",
    f"{subjects.JETSTREAM_API}.STREAM.MSG.GET.{subjects.AUDIT_STREAM}",
)


def _consume(stream: str) -> tuple[str, ...]:
    """Making, reading and acknowledging consumers of one stream.

    Whoever may make one may have the stream's messages sent to any subject of the account.
    """
    return (
        f"{subjects.JETSTREAM_API}.CONSUMER.CREATE.{stream}",
        f"{subjects.JETSTREAM_API}.CONSUMER.CREATE.{stream}.>",
        f"{subjects.JETSTREAM_API}.CONSUMER.DURABLE.CREATE.{stream}.*",
        f"{subjects.JETSTREAM_API}.CONSUMER.INFO.{stream}.*",
        f"{subjects.JETSTREAM_API}.CONSUMER.DELETE.{stream}.*",
        f"{subjects.JETSTREAM_API}.CONSUMER.MSG.NEXT.{stream}.*",
        f"$JS.ACK.{stream}.>",
        f"$JS.FC.{stream}.>",
    )


def _read_made(stream: str) -> tuple[str, ...]:
    """Reading a consumer that the scheduler has made."""
    return (f"{subjects.JETSTREAM_API}.CONSUMER.MSG.NEXT.{stream}.*",)


ROLES: dict[RoleName, Role] = {
    "agent": Role(
        purpose="A GPU host. Hears what is asked of itself, answers once, and registers itself.",
        publish=(
            subjects.register(OWN_ID),
            subjects.renew(OWN_ID),
        ),
        subscribe=(
            subjects.ping(OWN_ID),
            subjects.look(OWN_ID),
            subjects.gpu_status(OWN_ID),
            subjects.health(OWN_ID),
            f"_INBOX.{OWN_ID}.>",
            *_micro_service(subjects.AGENTD_SERVICE),
        ),
        answers=1,
        max_payload=65_536,
        max_subscriptions=40,
    ),
    "scheduler": Role(
        purpose="Pings agents, keeps the registry, and is the only writer of the bucket.",
        publish=(
            subjects.ping("*"),
            subjects.EVENT_ALL,
            subjects.ALIVE_ALL,
            subjects.AUDIT_ALL,
            f"{subjects.KEYS}>",
            "_INBOX.>",
            "_R_.>",
            *_READ_STREAMS,
            *_consume(_BUCKET),
            *_consume(_HISTORY),
            f"{subjects.JETSTREAM_API}.CONSUMER.CREATE.{_ALERTS}",  # for the alerts service
        ),
        subscribe=(
            "gpuping.registry.>",
            "gpuping.scheduler.>",
            f"{subjects.service_inbox('scheduler')}.>",
            *_micro_service(subjects.SCHEDULER_SERVICE),
        ),
    ),
    "storage": Role(
        purpose="Reads the history and answers questions about the past.",
        publish=(
            "_INBOX.>",
            "_R_.>",
            subjects.STORAGE_READY,
            *_READ_STREAMS,
            subjects.MAKE_CONSUMER,
            *_read_made(_HISTORY),
            f"$JS.ACK.{_HISTORY}.>",
            f"{subjects.JETSTREAM_API}.CONSUMER.INFO.{_BUCKET}.*",
        ),
        subscribe=(
            "gpuping.storage.>",
            f"{subjects.service_inbox('storage')}.>",
            *_micro_service(subjects.STORAGE_SERVICE),
        ),
        has_own_account=True,
    ),
    "gateway": Role(
        purpose="Asks services and agents for REST and the page; writes only the audit log.",
        publish=(
            subjects.NEW_HOST_ENROLMENT,
            "gpuping.registry.>",
            subjects.PING_NOW_ALL,
            subjects.FLEET,
            subjects.FLEET_MAP,
            subjects.STATS,
            "gpuping.storage.>",
            "gpuping.alerts.>",
            subjects.look("*"),
            subjects.gpu_status("*"),
            subjects.health("*"),
            subjects.AUDIT_ALL,
            subjects.SESSION_ENDED,
            *_READ_AUDIT,
            *_MICRO_VERBS,
            *(f"{verb}.>" for verb in _MICRO_VERBS),
        ),
        subscribe=(
            subjects.EVENT_ALL,
            subjects.SESSION_ENDED,
            f"{subjects.service_inbox('gateway')}.>",
        ),
        has_own_account=True,
    ),
    "enrolment": Role(
        purpose="Redeems enrolment tokens and renews credentials; holds the agents' signing key.",
        publish=(
            "_INBOX.>",
            "_R_.>",
            subjects.KEEP_ENROLMENT,
            subjects.CLOSE_CONNECTIONS,
            subjects.AUDIT_ALL,
            *_READ_STREAMS,
        ),
        subscribe=(
            "gpuping.enrolment.>",
            f"{subjects.service_inbox('enrolment')}.>",
            *_micro_service(subjects.ENROLMENT_SERVICE),
        ),
        has_own_account=True,
    ),
    "alerts": Role(
        purpose="Follows the history, and tells people what changed; writes only its own bucket.",
        publish=(
            "_INBOX.>",
            "_R_.>",
            subjects.LIST,
            subjects.STATS,
            subjects.STORAGE_STATS,
            subjects.of_every_instance(subjects.LIST),
            subjects.of_every_instance(subjects.STATS),
            subjects.of_every_instance(subjects.STORAGE_STATS),
            subjects.AUDIT_ALL,
            f"{subjects.ALERTS_KEYS}>",
            *_READ_STREAMS,
            f"{subjects.JETSTREAM_API}.STREAM.MSG.GET.{_ALERTS}",
            f"{subjects.JETSTREAM_API}.CONSUMER.INFO.{_BUCKET}.*",
            subjects.MAKE_CONSUMER,
            *_read_made(_BUCKET),
            *_read_made(_HISTORY),
            *_read_made(_ALERTS),
        ),
        subscribe=(
            "gpuping.alerts.>",
            f"{subjects.service_inbox('alerts')}.>",
            *_micro_service(subjects.ALERTS_SERVICE),
        ),
        has_own_account=True,
    ),
    "bridge": Role(
        purpose="Answers in a gateway for agents that are asked by HTTP; says nothing else.",
        publish=("_INBOX.>", "_R_.>", subjects.BRIDGE_CLAIM),
        # In its queue group only, so that it cannot listen beside an agent unnoticed.
        subscribe=(
            subjects.in_bridge_group(subjects.ping("*")),
            subjects.in_bridge_group(subjects.look("*")),
            subjects.in_bridge_group(subjects.gpu_status("*")),
            subjects.in_bridge_group(subjects.health("*")),
            subjects.BRIDGE_CLAIM,
            f"{subjects.service_inbox('bridge')}.>",
        ),
        max_payload=65_536,
    ),
    "bootstrap": Role(
        purpose="A host with an enrolment token: may ask for it to be redeemed, until it expires.",
        publish=(subjects.REDEEM, subjects.redeem(OWN_ID)),
        # the first is that of agentd before leaf nodes
        subscribe=(f"_INBOX.{OWN_ID}.>", f"{subjects.service_inbox('enrol')}.{OWN_ID}.>"),
        max_payload=8_192,
        max_subscriptions=4,
    ),
    "layout": Role(
        purpose="Makes, copies and changes streams; used at set-up, upgrades and backups only.",
        publish=(f"{subjects.JETSTREAM_API}.>", "$JS.SNAPSHOT.>"),
        subscribe=(f"{subjects.service_inbox('layout')}.>",),
    ),
    "operator": Role(
        purpose="A person with the nats CLI and gpuping: looks at everything, asks the services.",
        publish=(
            "gpuping.registry.>",
            "gpuping.scheduler.>",
            "gpuping.storage.>",
            "gpuping.alerts.>",
            "gpuping.enrolment.>",
            subjects.look("*"),
            subjects.ping("*"),
            subjects.gpu_status("*"),
            subjects.health("*"),
            f"{subjects.JETSTREAM_API}.INFO",
            f"{subjects.JETSTREAM_API}.STREAM.NAMES",
            f"{subjects.JETSTREAM_API}.STREAM.LIST",
            f"{subjects.JETSTREAM_API}.CONSUMER.NAMES.*",
            f"{subjects.JETSTREAM_API}.CONSUMER.LIST.*",
            *_READ_STREAMS,
            *_READ_AUDIT,
            *_consume(_BUCKET),
            *_consume(_HISTORY),
            *_MICRO_VERBS,
            *(f"{verb}.>" for verb in _MICRO_VERBS),
        ),
        subscribe=(subjects.EVENT_ALL, f"{subjects.service_inbox('operator')}.>"),
    ),
    "leaf": Role(
        purpose="A leaf node of a site: carries what the site's own agents may hear and say.",
        publish=(
            subjects.register(SITE_AGENT),
            subjects.renew(SITE_AGENT),
            subjects.REDEEM,
            subjects.REDEEM_ALL,
            "_INBOX.>",
            "_R_.>",
        ),
        subscribe=(
            subjects.ping(SITE_AGENT),
            subjects.look(SITE_AGENT),
            subjects.gpu_status(SITE_AGENT),
            subjects.health(SITE_AGENT),
            f"{subjects.inbox_prefix(SITE_AGENT)}.>",
            f"{subjects.service_inbox('enrol')}.>",
            *_micro_service(subjects.AGENTD_SERVICE),
        ),
        is_leaf=True,
    ),
}


# Of the system account: a site's server hears changed accounts, so that a revoked agent loses its
# connection there too, and asks for those that it missed while it was away. Nothing else.
LEAF_SYSTEM_PUBLISH = (subjects.CLAIMS_PACK,)
LEAF_SYSTEM_SUBSCRIBE = (subjects.CLAIMS_UPDATE, subjects.SYSTEM_INBOX)


# What whoever has no credentials may ask from loopback, in an account of its own.
LOOK_PUBLISH = (
    subjects.ping("*"),
    f"{subjects.JETSTREAM_API}.STREAM.INFO.{_BUCKET}",
    f"{subjects.JETSTREAM_API}.DIRECT.GET.{_BUCKET}.{subjects.agent_key('*')}",
    f"{subjects.JETSTREAM_API}.DIRECT.GET.{_BUCKET}.{subjects.state_key('*')}",
)
# What that account imports, and under which names: a ping arrives as a look. JetStream's answers
# pass through the import, so that they reach nobody but the asker. The import has to have the name
# of all of JetStream's API, because the server itself answers in its place otherwise ("JetStream
# not enabled for account"); what may be asked is LOOK_PUBLISH.
LOOK_IMPORTS = (
    (subjects.look("*"), "gpuping.ping.$1"),
    (f"{subjects.JETSTREAM_API}.>", f"{subjects.JETSTREAM_API}.>"),
)


def template(role: Role) -> dict[str, object]:
    """The permissions in the words of a NATS account's scoped signing key."""
    permissions: dict[str, object] = {
        "pub": {"allow": list(role.publish)},
        "sub": {"allow": list(role.subscribe)},
        "subs": role.max_subscriptions,
        "data": -1,
        "payload": role.max_payload,
        "allowed_connection_types": ["LEAFNODE"] if role.is_leaf else ["STANDARD", "WEBSOCKET"],
    }
    if role.answers:
        permissions["resp"] = {"max": role.answers, "ttl": ANSWER_SECONDS * 1_000_000_000}
    return permissions
