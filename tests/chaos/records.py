"""What the simulated hosts lived and answered, line by line in a file that survives their death."""

from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from bus.contract.messages import PingRequest
from tests.ledger_agents import AgentAnswer, Asked


class Answered(Struct, frozen=True):
    """One answer, written before it was sent; positions on CLOCK_BOOTTIME in milliseconds."""

    agent_id: str
    ping_id: str
    at: datetime
    since_mark: str | None
    since: int
    until: int
    up: int
    unknown: int
    report: str


class RecordedHost:
    """One host, in the shape that the auditor of the scheduler reads."""

    def __init__(self, agent_id: str) -> None:
        self.agent_id = agent_id
        self.said: dict[str, list[Answered]] = {}

    def answers_of(self, ping_id: str) -> list[Answered]:
        return self.said.get(ping_id, [])

    def use(self, ping_id: str, report: bytes | None) -> None:
        """Chooses the answer that was recorded, of several that a restarted host gave."""
        given = self.answers_of(ping_id)
        if not given:
            return
        chosen = given[-1]
        for one in given:
            if report is not None and one.report.encode() == report:
                chosen = one
        length = chosen.until - chosen.since
        uptime = 100.0 * chosen.up / length if length else None
        self.answers[ping_id] = AgentAnswer(
            chosen.at,
            chosen.report.encode(),
            uptime,
            True,
            chosen.since,
            chosen.until,
            str(chosen.until),
            True,
            chosen.up,
        )
        request = PingRequest(ping_id=ping_id, since_mark=chosen.since_mark)
        self.asked[ping_id] = Asked(chosen.at, request)

    answers: dict[str, AgentAnswer]
    asked: dict[str, Asked]


def read(files: list[Path]) -> dict[str, RecordedHost]:
    """Reads the files of all fleets. The last line of one that was killed may be torn."""
    hosts: dict[str, RecordedHost] = {}
    decoder = msgspec.json.Decoder(Answered)
    for file in files:
        for line in file.read_bytes().split(b"\n"):
            try:
                answered = decoder.decode(line)
            except msgspec.DecodeError:
                continue
            host = hosts.setdefault(answered.agent_id, RecordedHost(answered.agent_id))
            host.said.setdefault(answered.ping_id, []).append(answered)
    for host in hosts.values():
        host.answers = {}
        host.asked = {}
    return hosts
