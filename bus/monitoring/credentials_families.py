"""When the credentials of a process expire, for Prometheus: an alert comes before they do."""

from collections.abc import Iterable
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric

from bus.errors import GpupingError
from bus.identity import claims, credentials
from bus.settings import Settings

NAME = "gpuping_credentials_expire_timestamp_seconds"
TEXT = "When the credentials of this process for the bus expire, in seconds since 1970"


class CredentialsCollector:
    """Reads the file at each scrape, because it is replaced when they are renewed."""

    def __init__(self, settings: Settings, service: str) -> None:
        self._settings = settings
        self._service = service

    def collect(self) -> Iterable[Metric]:
        """One gauge; nothing where there are no credentials, or they never expire."""
        return credentials_families(self._settings, self._service)


def credentials_families(settings: Settings, service: str) -> list[Metric]:
    """As CredentialsCollector.collect."""
    if settings.NATS_CREDS is None:
        return []
    try:
        held = credentials.read(Path(settings.NATS_CREDS).expanduser())
        expires_at = claims.decode(held.token).expires_at
    except GpupingError:
        return []  # whoever connects with them says what is wrong
    if not expires_at:
        return []
    family = GaugeMetricFamily(NAME, TEXT, labels=["service"])
    family.add_metric([service], expires_at)
    return [family]
