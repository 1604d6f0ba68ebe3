"""GPUs that do not exist: plays a scenario file as a probe, for machines and tests without a GPU.

The vocabulary is in docs/guide.md#simulated-gpus, and the C stand-in for NVML reads the same files. The player shows what the
health rules come to in the end; what leads there (ten minutes of heat, a driver's error) is the stand-in's.
"""

import tomllib
import uuid
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from agentd.health import rules
from agentd.samples import GpuEvent, GpuSample, Sample
from bus.clock import boottime
from bus.contract.subjects import END
from bus.errors import SettingsError

BUILT_IN = Path(__file__).with_name("scenarios")
STATE_PATTERN = (
    r"^(ok|lost|missing|hang|ecc|xid:[0-9]{1,4}|remap-pending|remap-failed|thermal|not-supported)"
    + END
)
_NAMESPACE = uuid.UUID(
    "6b0d1f0e-3a52-5d1c-9d55-0c2f7a1b9e42"
)  # arbitrary, and for ever: UUIDs follow from it
_Seconds = Annotated[float, Meta(ge=0.0, le=1e9)]
_Length = Annotated[float, Meta(gt=0.0, le=1e9)]


class Event(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """From `at` on (seconds after agentd's start), `lasts` seconds long, again every `every` seconds."""

    at: _Seconds
    gpu: Annotated[int, Meta(ge=0)] | Literal["all"]
    state: Annotated[str, Meta(pattern=STATE_PATTERN)]
    lasts: _Length | None = field(default=None, name="for")
    every: _Length | None = None

    def began(self, elapsed: float) -> float | None:
        """When the occurrence that holds at `elapsed` began; None where none does."""
        if elapsed < self.at:
            return None
        began = (
            self.at + ((elapsed - self.at) // self.every) * self.every if self.every else self.at
        )
        return began if self.lasts is None or elapsed < began + self.lasts else None


class Scenario(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How many GPUs there are, and what becomes of them."""

    gpus: Annotated[int, Meta(ge=0, le=64)] = 1
    events: tuple[Event, ...] = field(default=(), name="event")

    def state(self, gpu: int, elapsed: float) -> tuple[str, float]:
        """The GPU's state and when it began. Of several events the one that began last holds, then the later line."""
        found, since = "ok", 0.0
        for event in self.events:
            began = event.began(elapsed) if event.gpu in (gpu, "all") else None
            if began is not None and began >= since:
                found, since = event.state, began
        return found, since


def names() -> tuple[str, ...]:
    """The built-in scenarios."""
    return tuple(sorted(path.stem for path in BUILT_IN.glob("*.toml")))


def load(name_or_path: str) -> Scenario:
    """A built-in scenario by its name, or a file. Raises SettingsError, in one line."""
    built_in = BUILT_IN / f"{name_or_path}.toml"
    path = built_in if name_or_path in names() else Path(name_or_path).expanduser()
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(names())
        raise _refusal(name_or_path, f"expected a scenario file or one of {known}") from None
    except OSError as error:
        raise _refusal(name_or_path, error.strerror or "cannot be read") from None
    except ValueError as error:  # no TOML, no UTF-8, or not a scenario
        raise _refusal(name_or_path, str(error)) from None


def parse(text: str) -> Scenario:
    """Raises ValueError that says which field of which event, and what was expected there."""
    scenario = msgspec.convert(tomllib.loads(text), Scenario)
    for number, event in enumerate(scenario.events, 1):
        if event.gpu != "all" and event.gpu >= scenario.gpus:
            raise ValueError(
                f'event {number}: gpu = {event.gpu}: expected below {scenario.gpus} or "all"'
            )
    return scenario


def _refusal(name: str, why: str) -> SettingsError:
    return SettingsError(f"AGENT_SCENARIO={name!r}: {' '.join(why.split())}")


@cache
def simulated_uuid(agent_id: str, gpu: int) -> str:
    """The same at every start, so that an agent's expected GPUs stay the expected ones."""
    return f"GPU-{uuid.uuid5(_NAMESPACE, f'{agent_id}/{gpu}')}"


class ScenarioProbe:
    """Plays a scenario. No child, no thread, no memory beyond the scenario: hundreds live in one process."""

    simulated = True

    def __init__(
        self, scenario: Scenario, agent_id: str, xids: rules.XidTable, started: float
    ) -> None:
        self._scenario = scenario
        self._uuids = tuple(simulated_uuid(agent_id, gpu) for gpu in range(scenario.gpus))
        self._xids = xids
        self._started = started
        self._states: list[tuple[str, float]] = [("ok", 0.0)] * scenario.gpus
        self._gpus = self._judged()

    async def check(self, expected: tuple[str, ...] = ()) -> Sample:  # noqa: ARG002  # the player knows its GPUs
        """What the scenario says of this moment. XIDs without an effect are told once, when they happen."""
        now = boottime()
        states = [
            self._scenario.state(gpu, now - self._started) for gpu in range(self._scenario.gpus)
        ]
        if states == self._states:
            return Sample(at=now, gpus=self._gpus)
        events = tuple(self._events(states))
        self._states = states
        self._gpus = self._judged()
        return Sample(at=now, gpus=self._gpus, events=events)

    def _judged(self) -> tuple[GpuSample, ...]:
        return tuple(
            GpuSample(
                uuid=self._uuids[gpu],
                index=gpu,
                name="Simulated GPU",
                state=verdict,
                reasons=reasons,
            )
            for gpu, (word, _) in enumerate(self._states)
            if word != "missing"
            for verdict, reasons in [rules.verdict_on(word, self._xids)]
        )

    def _events(self, states: list[tuple[str, float]]) -> Iterable[GpuEvent]:
        for gpu, (word, since) in enumerate(states):
            fresh = (word, since) != self._states[gpu]
            if (
                fresh
                and word.startswith("xid:")
                and rules.effect_of(int(word[4:]), self._xids) == "incident"
            ):
                yield GpuEvent(at=self._started + since, uuid=self._uuids[gpu], reason=word)

    async def details(self) -> list[dict[str, Any]]:
        """The fields that the real probe has; what no scenario speaks of is None."""
        return [
            {**_NO_DETAILS, "uuid": gpu.uuid, "index": gpu.index, "name": gpu.name}
            for gpu in self._gpus
        ]

    async def close(self) -> None:
        """Nothing to end."""


_NO_DETAILS: dict[str, Any] = dict.fromkeys(
    (
        "driver", "serial", "pci", "temperature_celsius", "power_watts", "power_limit_watts", "utilization_percent",
        "memory_total_bytes", "memory_used_bytes", "ecc_uncorrected_volatile", "pcie_generation", "pcie_width",
        "throttle_bits", "throttle_reasons", "processes",
    )
) | {"simulated": True, "xids": {}}  # fmt: skip
