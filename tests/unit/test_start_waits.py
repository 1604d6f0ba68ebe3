"""A service that starts while the bus cannot answer waits for it, and tells a real fault."""

import pytest

from bus.errors import LayoutError, UnavailableError
from bus.transport import availability, jetstream_api
from bus.transport.availability import when_available


async def test_what_is_not_available_is_tried_until_it_is():
    tries = 0

    async def is_there_at_the_third_try() -> str:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise UnavailableError("JetStream did not answer STREAM.INFO: TimeoutError")
        return "done"

    assert await when_available(is_there_at_the_third_try) == "done"


async def test_another_error_is_told_at_once():
    async def is_wrong() -> None:
        raise LayoutError("the stream has another storage")

    with pytest.raises(LayoutError):
        await when_available(is_wrong)


@pytest.mark.parametrize(
    "error",
    [
        availability.NotEnabledError("JetStream is not enabled on this server"),
        availability.TooFewServersError(400, 10005, "no suitable peers for placement"),
    ],
)
async def test_what_may_be_a_fault_is_told_after_a_while(
    error: UnavailableError, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(availability, "ENABLED_SECONDS", 0.2)
    tries = 0

    async def is_missing() -> None:
        nonlocal tries
        tries += 1
        raise error

    with pytest.raises(type(error)):
        await when_available(is_missing)
    assert tries > 1


def test_servers_that_are_away_are_waited_for_and_too_few_are_not():
    answer = b'{"error":{"code":400,"err_code":10005,"description":"no suitable peers%b"}}'
    with pytest.raises(UnavailableError, match="start the servers that are missing"):
        jetstream_api.answer_of(answer % b" for placement, peer offline")
    with pytest.raises(jetstream_api.JetStreamApiError) as refused:
        jetstream_api.answer_of(answer % b" for placement, insufficient storage")
    assert not isinstance(refused.value, UnavailableError)


def test_servers_that_have_not_joined_yet_are_waited_for():
    """Seed 1102 of the drill: of a cluster that was starting, the leader knew too few servers."""
    answer = b'{"error":{"code":400,"err_code":10005,"description":"no suitable peers%b"}}'
    with pytest.raises(jetstream_api.TooFewServersError, match="start the servers that are"):
        jetstream_api.answer_of(answer % b" for placement")


@pytest.mark.parametrize(
    ("code", "advice"),
    [(10008, "wait until the cluster has a leader"), (10012, "raise the limit of open files")],
)
def test_a_server_that_cannot_do_it_now_is_away_and_not_wrong(code: int, advice: str):
    answer = b'{"error":{"code":503,"err_code":%d,"description":"not now"}}' % code
    with pytest.raises(UnavailableError, match=advice):
        jetstream_api.answer_of(answer)
