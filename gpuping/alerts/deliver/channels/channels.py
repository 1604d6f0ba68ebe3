"""Sends a notification to its target, by whichever way the alerts file names."""

import asyncio

from bus.contract.alerts import Notification
from gpuping.alerts.deliver.channels import apprise_service, webhook
from gpuping.alerts.deliver.channels.errors import SendingError
from gpuping.alerts.rules.alerts_file import AlertsFile, Target

__all__ = ["Channels", "SendingError"]


class Channels:
    """The targets of one alerts file."""

    def __init__(self, file: AlertsFile) -> None:
        self._targets = {target.name: target for target in file.target}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the targets, in the order of the file."""
        return tuple(self._targets)

    async def send(self, notification: Notification) -> None:
        """Sends, in a thread of its own. Raises SendingError."""
        target = self._targets.get(notification.target)
        if target is None:
            raise SendingError("the alerts file has no such target any more")
        await asyncio.to_thread(_send, target, notification)


def _send(target: Target, notification: Notification) -> None:
    if target.url is not None:
        apprise_service.send(target.url, notification)
    else:
        webhook.send(target.webhook or "", target.secret or "", notification)
