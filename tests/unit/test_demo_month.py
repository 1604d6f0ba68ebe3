"""The outcomes that the demo invents are valid at any moment, whatever the window's length."""

from datetime import UTC, datetime, timedelta

import pytest

from bus.contract.messages import AgentState, decode, encode
from gpuping.up import demo

NOW = datetime(2026, 11, 26, tzinfo=UTC)


@pytest.mark.parametrize("host", demo.HOSTS, ids=lambda host: host.agent_id)
def test_every_last_state_can_be_read(host: demo.DemoHost) -> None:
    *_, last = demo._month(host, NOW)
    for milliseconds in range(1, 20_000, 37):
        state = demo._carried_on(host, last, NOW + timedelta(milliseconds=milliseconds))
        assert decode(encode(state), AgentState).ping_seq == last.ping_seq + 1
