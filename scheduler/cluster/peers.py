"""Which schedulers are alive, and which of them pings an agent.

This divides the work and never decides what is true. If two schedulers ping the same agent, the
compare-and-set lets only one outcome into the bucket. If none pings it, the agent's timer fires.

An announcement is a claim, which anybody on the bus may have sent. A peer is therefore believed
only while its work is done: outcomes in the bucket name the scheduler that wrote them. A peer whose
due agents wait longer than a ping can take, while no outcome of it appears, counts no more until
one does. More than MAX_UNPROVEN newcomers at once are a flood, of which none counts before its
first outcome.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Literal

import nats.errors
import structlog
from nats.aio.msg import Msg

from bus.background import wait_at_most
from bus.clock import boottime, utc_now
from bus.contract import subjects
from bus.contract.messages import Message, decode, encode
from bus.contract.questions import LostScheduler
from bus.errors import BadMessageError
from bus.transport.bus_clock import TOLERANCE_SECONDS
from bus.transport.connection import Client

log = structlog.get_logger("scheduler.cluster.peers")

ANNOUNCE_SECONDS = 1.0
SILENT_SECONDS = 3.5
GREETING_SECONDS = 0.25
ANSWER_SECONDS = 0.05  # between two announcements that answer newcomers
PATIENCE_SECONDS = 5.0  # with a peer, beyond the time-out of a ping
NEWCOMER_SECONDS = 30.0  # an agent that waits this long waits no longer for one that just came
MAX_UNPROVEN = 8
MAX_HEARD = 100  # names that are remembered at once
LOST_REMEMBERED = timedelta(hours=1)  # after that the operator has fewer schedulers on purpose
WEIGHT_BYTES = 8
Word = Literal["hello", "here", "bye"]


class Alive(Message, kw_only=True, frozen=True):
    """What one scheduler announces to the others; the subject names the sender.

    `policy` is the fingerprint of its rules; empty from a scheduler that does not say.
    `clock_offset_seconds` is the server's clock less the sender's; None before it was measured.
    """

    word: Word
    policy: str = ""
    clock_offset_seconds: float | None = None


def new_instance() -> str:
    """Returns a name for one scheduler, with which its ping ids begin too."""
    return secrets.token_hex(5)


def instance_of(ping_id: str) -> str:
    """Returns the name of the scheduler that made a ping."""
    return ping_id.partition("-")[0]


def weight(instance: str, agent_id: str) -> int:
    """Returns the random weight by which schedulers compete for an agent.

    It must differ independently for each pair: with a linear checksum such as CRC32 three
    schedulers got 50, 25 and 25 % of the agents.
    """
    pair = f"{instance}:{agent_id}".encode()
    digest = hashlib.blake2b(pair, digest_size=WEIGHT_BYTES).digest()
    return int.from_bytes(digest, "big")


class Peers:
    """The schedulers that are believed to work, and this one.

    `on_change` is called when a scheduler appears or disappears. `greeted` is set once the others
    had time to answer this scheduler's first announcement. `policy` is the fingerprint of the rules
    of this scheduler, `timeout_seconds` the time-out of a ping. `clock_offset` returns the server's
    clock less this scheduler's, in seconds.
    """

    def __init__(
        self,
        client: Client,
        instance: str,
        on_change: Callable[[], None],
        *,
        policy: str = "",
        timeout_seconds: float = 10.0,
        clock_offset: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._client = client
        self.instance = instance
        self._policy = policy
        self._clock_offset = clock_offset
        self._patience_seconds = timeout_seconds + PATIENCE_SECONDS
        self.on_change = on_change
        # times are CLOCK_BOOTTIME in seconds, by instance
        self._heard_at: dict[str, float] = {}
        self._came_at: dict[str, float] = {}
        self._policies: dict[str, str] = {}
        self._clock_offsets: dict[str, float] = {}  # those that were measured
        self._clocks_apart: dict[str, float] = {}  # the peers whose clock differs
        self._worked_at: dict[str, float] = {}
        self._neglecting: set[str] = set()
        self._lost: dict[str, LostScheduler] = {}  # by instance, oldest first
        self._heard_self_at = 0.0
        self._announced_at = 0.0
        self._bus_good_since = 0.0
        self._believed: tuple[str, ...] = (instance,)
        self._was_alone = True
        self._is_flooded = False
        self._others_differ: tuple[str, ...] = ()
        self._answer_wanted = asyncio.Event()
        self.greeted = asyncio.Event()

    async def run(self) -> None:
        """Announces this scheduler until cancelled, and then announces that it leaves."""
        subscription = await self._client.subscribe(subjects.ALIVE_ALL, cb=self._receive)
        await self._announce("hello")
        log.info("scheduler_announced", instance=self.instance)
        asyncio.get_running_loop().call_later(GREETING_SECONDS, self.greeted.set)
        try:
            while True:
                await self._pause()
                await self._announce("here")
                self._expire_silent()
        finally:
            if self._client.is_connected:
                await self._announce("bye")
                await subscription.unsubscribe()

    def owner(self, agent_id: str) -> str:
        """Returns the scheduler that pings the agent: the one with the highest random weight.

        Few agents change hands when a scheduler comes or goes.
        """
        believed = self._believed
        if len(believed) == 1:
            return self.instance
        return max(believed, key=lambda instance: weight(instance, agent_id))

    def is_mine(self, agent_id: str) -> bool:
        """Returns whether this scheduler pings the agent."""
        return self.owner(agent_id) == self.instance

    def hears(self, instance: str) -> bool:
        """Returns whether a scheduler announces itself, believed or not; this one does."""
        return instance == self.instance or instance in self._heard_at

    @property
    def alone(self) -> bool:
        """Whether no other scheduler is heard, believed or not."""
        return not self._heard_at

    @property
    def count(self) -> int:
        """How many schedulers announce themselves, with this one."""
        return len(self._heard_at) + 1

    @property
    def lost(self) -> tuple[LostScheduler, ...]:
        """The peers that worked and fell silent without a farewell within the last hour.

        One that is heard again is not lost, and each scheduler that comes takes the place of one: a
        service manager starts what was ended by force under a new name.
        """
        begins = utc_now() - LOST_REMEMBERED
        return tuple(one for one in self._lost.values() if one.since > begins)

    @property
    def differing_policies(self) -> tuple[str, ...]:
        """The believed peers whose rules are not those of this scheduler."""
        return self._others_differ

    @property
    def clock_difference_seconds(self) -> float:
        """How far the clock of a believed peer is from this scheduler's, at most."""
        return max(self._clock_differences().values(), default=0.0)

    def saw_outcome(self, ping_id: str) -> None:
        """Notes who wrote an outcome that appeared in the bucket."""
        instance = instance_of(ping_id)
        if instance not in self._heard_at:
            return
        is_news = instance in self._neglecting or instance not in self._worked_at
        self._worked_at[instance] = boottime()
        if is_news:
            self._neglecting.discard(instance)
            self._update()

    def agent_waits(self, owner: str, waited_seconds: float) -> None:
        """Judges a peer by one of its agents, whose ping is that late.

        The time in which this scheduler did not hear itself does not count: the bus was away.
        """
        now = boottime()
        since = max(now - waited_seconds, self._bus_good_since, self._worked_at.get(owner, 0.0))
        if waited_seconds < NEWCOMER_SECONDS:
            since = max(since, self._came_at.get(owner, now))
        if now - since <= self._patience_seconds or owner in self._neglecting:
            return
        log.warning(
            "scheduler_neglects_agents",
            peer=owner,
            waiting_seconds=round(waited_seconds, 1),
            action="its agents are pinged by the others until an outcome of it is seen",
        )
        self._neglecting.add(owner)
        self._update()

    async def _answer(self, now: float) -> None:
        """Answers a newcomer, at once or, when many greet, a moment later with one announcement."""
        if now - self._announced_at < ANSWER_SECONDS:
            self._answer_wanted.set()
            return
        await self._announce("here")

    async def _pause(self) -> None:
        """Returns when it is time to announce: regularly, or soon after a newcomer's greeting."""
        await asyncio.sleep(ANSWER_SECONDS)
        await wait_at_most(self._answer_wanted, ANNOUNCE_SECONDS - ANSWER_SECONDS)
        self._answer_wanted.clear()

    async def _announce(self, word: Word) -> None:
        self._announced_at = boottime()
        message = Alive(
            word=word,
            policy=self._policy,
            clock_offset_seconds=self._clock_offset(),
        )
        try:
            await self._client.publish(subjects.alive(self.instance), encode(message))
        except nats.errors.Error as error:
            log.debug("peer_announce_failed", detail=str(error))

    async def _receive(self, message: Msg) -> None:
        now = boottime()
        sender = message.subject.rpartition(".")[2]
        if sender == self.instance:
            if now - self._heard_self_at > SILENT_SECONDS:
                self._bus_good_since = now
            self._heard_self_at = now
            return
        try:
            announced = decode(message.data, Alive)
        except BadMessageError as error:
            log.warning("peer_message_rejected", detail=str(error))
            return
        if announced.word == "bye":
            self._forget(sender)
        elif sender in self._heard_at or len(self._heard_at) < MAX_HEARD:
            if sender not in self._heard_at:
                self._take_lost_place(sender)
            self._heard_at[sender] = now
            self._came_at.setdefault(sender, now)
            self._policies[sender] = announced.policy
            if announced.clock_offset_seconds is not None:
                self._clock_offsets[sender] = announced.clock_offset_seconds
        self._update()
        if announced.word == "hello":
            await self._answer(now)

    def _expire_silent(self) -> None:
        """Removes the peers that were silent while this scheduler heard its own announcements.

        While the bus is away this scheduler does not hear itself either, so no peer is removed.
        """
        expired_before = self._heard_self_at - SILENT_SECONDS
        silent = [name for name, at in self._heard_at.items() if at <= expired_before]
        for instance in silent:
            if instance in self._worked_at:
                self._lost[instance] = LostScheduler(instance=instance, since=utc_now())
                log.warning("scheduler_lost", peer=instance, action="see whether it runs")
            self._forget(instance)
        self._update()

    def _take_lost_place(self, sender: str) -> None:
        """A scheduler is back, or a new one stands for the one that was lost first."""
        if sender not in self._lost:
            sender = next(iter(self._lost), sender)
        self._lost.pop(sender, None)

    def _forget(self, instance: str) -> None:
        self._heard_at.pop(instance, None)
        self._came_at.pop(instance, None)
        self._policies.pop(instance, None)
        self._clock_offsets.pop(instance, None)
        self._worked_at.pop(instance, None)
        self._neglecting.discard(instance)

    def _update(self) -> None:
        """Decides whom to believe, and calls `on_change` if that has changed."""
        proven = []
        unproven = []
        for instance in self._heard_at:
            if instance in self._neglecting:
                continue
            if instance in self._worked_at:
                proven.append(instance)
            else:
                unproven.append(instance)
        is_flooded = len(unproven) > MAX_UNPROVEN
        if is_flooded and not self._is_flooded:
            log.error(
                "unknown_schedulers_ignored",
                heard=len(unproven),
                action="they count once they ping; see who publishes on gpuping.scheduler.alive",
            )
        self._is_flooded = is_flooded
        if is_flooded:
            unproven = []
        believed = tuple(sorted((*proven, *unproven, self.instance)))
        has_changed = believed != self._believed
        if has_changed:
            log.info("schedulers_changed", alive=len(believed))
            self._believed = believed
        if has_changed or self.alone != self._was_alone:
            self._was_alone = self.alone
            self.on_change()
        self._compare_policies()
        self._compare_clocks()

    def _compare_policies(self) -> None:
        """Notes the peers that judge by other rules, and logs each of them once."""
        differing = []
        for instance in self._believed:
            theirs = self._policies.get(instance, "")
            if theirs and self._policy and theirs != self._policy:
                differing.append(instance)
        for instance in differing:
            if instance not in self._others_differ:
                log.error(
                    "scheduler_policy_differs",
                    peer=instance,
                    action="give all schedulers the same PING_ settings",
                )
        self._others_differ = tuple(differing)

    def _compare_clocks(self) -> None:
        """Logs the peers whose clock differs, each of them once when it begins to.

        The windows of pings lie on the calendar of the scheduler that made them.
        """
        differences = self._clock_differences()
        apart = {name: by for name, by in differences.items() if by > TOLERANCE_SECONDS}
        for instance, seconds in apart.items():
            if instance not in self._clocks_apart:
                log.error(
                    "clock_differs_from_peer",
                    peer=instance,
                    seconds=round(seconds, 3),
                    action="set the clocks of the schedulers' hosts right (NTP)",
                )
        self._clocks_apart = apart

    def _clock_differences(self) -> dict[str, float]:
        """Returns how far each believed peer's clock is from this one's, by way of the server's."""
        own = self._clock_offset()
        if own is None:
            return {}
        differences = {}
        for instance in self._believed:
            theirs = self._clock_offsets.get(instance)
            if theirs is not None:
                differences[instance] = abs(theirs - own)
        return differences
