"""The ways to a target: the services that apprise knows, and the signed webhook."""

from gpuping.alerts.deliver.channels.channels import Channels, SendingError

__all__ = ["Channels", "SendingError"]
