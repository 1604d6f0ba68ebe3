"""Simulated GPUs: plays a scenario file as a probe, for machines and tests without a GPU.

The vocabulary is in docs/guide.md#simulated-gpus. The C stand-in for NVML in `tests/standin` reads
the same files. The player shows the state that the health rules end up with; the stand-in shows
what leads there, such as ten minutes of heat or a driver's error.
"""

import tomllib
import uuid
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct, field

from agentd.health import rules
from agentd.health.rules import XidTable
from agentd.samples import GpuEvent, GpuSample, Sample
from bus.clock import boottime
from bus.contract.messages import GpuState
from bus.contract.subjects import END
from bus.errors import SettingsError

BUILT_IN = Path(__file__).with_name("scenarios")
STATE_PATTERN = (
    r"^(ok|lost|missing|hang|ecc|xid:[0-9]{1,4}|remap-pending|remap-failed|thermal|not-supported)"
    + END
)
# An arbitrary value that must never change: the UUIDs of simulated GPUs follow from it.
_NAMESPACE = uuid.UUID("6b0d1f0e-3a52-5d1c-9d55-0c2f7a1b9e42")
_Seconds = Annotated[float, Meta(ge=0.0, le=1e9)]
_Length = Annotated[float, Meta(gt=0.0, le=1e9)]


class ScenarioEvent(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """From `at` (seconds after agentd's start) for `lasts` seconds, again every `every` seconds."""

    at: _Seconds
    gpu: Annotated[int, Meta(ge=0)] | Literal["all"]
    state: Annotated[str, Meta(pattern=STATE_PATTERN)]
    lasts: _Length | None = field(default=None, name="for")
    every: _Length | None = None

    def began(self, elapsed: float) -> float | None:
        """When the occurrence that holds at `elapsed` began, in seconds; None where none holds."""
        if elapsed < self.at:
            return None
        began = self.at
        if self.every is not None:
            repetitions = (elapsed - self.at) // self.every
            began += repetitions * self.every
        if self.lasts is not None and elapsed >= began + self.lasts:
            return None
        return began


class TimedState(NamedTuple):
    """A word of the scenario vocabulary, and its beginning in seconds after agentd's start."""

    word: str
    since: float


_OK = TimedState("ok", 0.0)


class Scenario(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How many GPUs there are, and what happens to them."""

    gpus: Annotated[int, Meta(ge=0, le=64)] = 1
    events: tuple[ScenarioEvent, ...] = field(default=(), name="event")

    def state(self, gpu: int, elapsed: float) -> TimedState:
        """The GPU's state.

        Of several events the one that began last holds, then the later one in the file.
        """
        found = _OK
        for event in self.events:
            if event.gpu not in (gpu, "all"):
                continue
            began = event.began(elapsed)
            if began is not None and began >= found.since:
                found = TimedState(event.state, began)
        return found


def names() -> tuple[str, ...]:
    """The built-in scenarios."""
    return tuple(sorted(path.stem for path in BUILT_IN.glob("*.toml")))


def load(name_or_path: str) -> Scenario:
    """A built-in scenario by its name, or a file. Raises SettingsError, in one line."""
    path = Path(name_or_path).expanduser()
    if name_or_path in names():
        path = BUILT_IN / f"{name_or_path}.toml"
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(names())
        raise _refusal(name_or_path, f"expected a scenario file or one of {known}") from None
    except OSError as error:
        raise _refusal(name_or_path, error.strerror or "cannot be read") from None
    except ValueError as error:  # not TOML, not UTF-8, or not a scenario
        raise _refusal(name_or_path, str(error)) from None


def parse(text: str) -> Scenario:
    """Raises ValueError that says which field of which event, and what was expected there."""
    scenario = msgspec.convert(tomllib.loads(text), Scenario)
    for number, event in enumerate(scenario.events, 1):
        if event.gpu != "all" and event.gpu >= scenario.gpus:
            expected = f'below {scenario.gpus} or "all"'
            raise ValueError(f"event {number}: gpu = {event.gpu}: expected {expected}")
    return scenario


def _refusal(name: str, reason: str) -> SettingsError:
    one_line = " ".join(reason.split())
    return SettingsError(f"AGENT_SCENARIO={name!r}: {one_line}")


@cache
def simulated_uuid(agent_id: str, gpu: int) -> str:
    """The same at every start, so that an agent's expected GPUs stay the expected ones."""
    return f"GPU-{uuid.uuid5(_NAMESPACE, f'{agent_id}/{gpu}')}"


class ScenarioProbe:
    """Plays a scenario.

    It needs no child, no thread and little memory: hundreds fit into one process.
    """

    simulated = True

    def __init__(
        self,
        scenario: Scenario,
        agent_id: str,
        xids: rules.XidTable,
        started: float,
    ) -> None:
        self._scenario = scenario
        self._uuids = tuple(simulated_uuid(agent_id, gpu) for gpu in range(scenario.gpus))
        self._xids = xids
        self._started = started
        self._states = [_OK] * scenario.gpus
        self._gpus = self._judge()

    # The player knows its GPUs.
    async def check(self, expected: tuple[str, ...] = ()) -> Sample:  # noqa: ARG002
        """The state of this moment. An XID without an effect is an event, once, when it happens."""
        now = boottime()
        elapsed = now - self._started
        states = [self._scenario.state(gpu, elapsed) for gpu in range(self._scenario.gpus)]
        if states == self._states:
            return Sample(at=now, gpus=self._gpus)
        events = self._events(states)
        self._states = states
        self._gpus = self._judge()
        return Sample(
            at=now,
            gpus=self._gpus,
            events=tuple(events),
        )

    def _judge(self) -> tuple[GpuSample, ...]:
        gpus = []
        for index, state in enumerate(self._states):
            if state.word == "missing":
                continue
            gpu_state, reasons = _state_and_reasons(state.word, self._xids)
            gpu = GpuSample(
                uuid=self._uuids[index],
                index=index,
                name="Simulated GPU",
                state=gpu_state,
                reasons=reasons,
            )
            gpus.append(gpu)
        return tuple(gpus)

    def _events(self, states: list[TimedState]) -> list[GpuEvent]:
        events = []
        for gpu, state in enumerate(states):
            if state == self._states[gpu] or not state.word.startswith("xid:"):
                continue
            number = int(state.word.removeprefix("xid:"))
            if rules.effect_of(number, self._xids) == "incident":
                at = self._started + state.since
                events.append(
                    GpuEvent(
                        at=at,
                        uuid=self._uuids[gpu],
                        reason=state.word,
                    )
                )
        return events

    async def details(self) -> list[dict[str, Any]]:
        """The fields that the real probe has. Those that no scenario sets are None."""
        details = []
        for gpu in self._gpus:
            known = {"uuid": gpu.uuid, "index": gpu.index, "name": gpu.name}
            details.append(_NO_DETAILS | known)
        return details

    async def close(self) -> None:
        """There is nothing to end."""


def _state_and_reasons(word: str, table: XidTable) -> tuple[GpuState, tuple[str, ...]]:
    """Returns the state and reasons for a word of the scenario vocabulary, such as `xid:79`."""
    if word.startswith("xid:"):
        effect = rules.effect_of(int(word.removeprefix("xid:")), table)
        if effect in ("down", "degraded"):
            return (effect, (word,))
        return ("up", ())
    reason = word
    if word == "hang":
        reason = "hung"
    if reason not in rules.STATE_OF_REASON:
        return ("up", ())
    return (rules.STATE_OF_REASON[reason], (reason,))


_NO_DETAILS: dict[str, Any] = dict.fromkeys(
    (
        "driver",
        "serial",
        "pci",
        "temperature_celsius",
        "power_watts",
        "power_limit_watts",
        "utilization_percent",
        "memory_total_bytes",
        "memory_used_bytes",
        "ecc_uncorrected_volatile",
        "pcie_generation",
        "pcie_width",
        "throttle_bits",
        "throttle_reasons",
        "processes",
    )
) | {"simulated": True, "xids": {}}
