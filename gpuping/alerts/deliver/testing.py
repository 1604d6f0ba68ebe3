"""A test message to targets, which is sent at once and kept nowhere."""

import asyncio
import secrets

from bus.clock import utc_now
from bus.contract.alerts import Notification, TestResult, TestResults
from bus.errors import RefusedError
from gpuping.alerts.deliver.channels import Channels, SendingError

SEND_SECONDS = 20.0


async def send_test(channels: Channels, only: str | None) -> TestResults:
    """Sends to one target, or to all, and says what became of it. Raises RefusedError 404."""
    names = channels.names
    if only is not None:
        if only not in names:
            known = ", ".join(names) or "none"
            raise RefusedError(404, f"the alerts file has no target {only!r}; it has {known}")
        names = (only,)
    results = await asyncio.gather(*[_send(channels, name) for name in names])
    return TestResults(results=tuple(results))


async def _send(channels: Channels, target: str) -> TestResult:
    now = utc_now()
    notification = Notification(
        notification_id=secrets.token_hex(12),
        target=target,
        severity="info",
        title="test message of gpuping",
        text="This target will be told what its routes in the alerts file say.",
        changes=(),
        made_at=now,
        next_attempt_at=now,
    )
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await channels.send(notification)
    except SendingError as error:
        return TestResult(target=target, error=str(error))
    except TimeoutError:
        return TestResult(target=target, error=f"it did not answer within {SEND_SECONDS:g} s")
    return TestResult(target=target)
