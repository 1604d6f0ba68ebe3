"""The services that apprise knows: mail, chat, pagers, SMS.

Apprise tells why something failed in its log only, and the log may have addresses. So nothing of it
reaches the log of this process; the warnings of one attempt are collected, and what is secret in
them is replaced.
"""

import logging
import threading
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from bus.contract.alerts import Notification, Severity
from bus.redaction import HIDDEN, redact
from gpuping import extras
from gpuping.alerts.deliver.channels.errors import SendingError

SHORTEST_SECRET = 3  # shorter parts of an address are in every sentence
LONGEST_REASON = 300
NOTIFICATION_HEADER = "X-Gpuping-Notification"
_TYPES: dict[Severity, str] = {"info": "info", "warning": "warning", "critical": "failure"}


class _Warnings(logging.Handler):
    """Collects the warnings that one thread logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.texts.append(record.getMessage())


def send(url: str, notification: Notification) -> None:
    """Sends by apprise. Raises SendingError. This blocks."""
    apprise = _apprise()
    log = logging.getLogger("apprise")
    warnings = _Warnings()
    log.addHandler(warnings)
    try:
        service = apprise.Apprise.instantiate(url)
        if service is None:
            raise SendingError(_why(warnings.texts, url, "apprise does not know such an address"))
        headers = getattr(service, "headers", None)
        if isinstance(headers, dict):  # mail: a receiver can tell a message that comes twice
            headers[NOTIFICATION_HEADER] = notification.notification_id
        is_sent = service.notify(
            title=f"[{notification.severity}] {notification.title}",
            body=notification.text,
            notify_type=_TYPES[notification.severity],
        )
    except (OSError, TypeError, ValueError) as error:
        raise SendingError(_why([f"{type(error).__name__}: {error}"], url, "")) from None
    finally:
        log.removeHandler(warnings)
    if not is_sent:
        raise SendingError(_why(warnings.texts, url, "the service did not take the message"))


@cache
def _apprise() -> Any:
    """Apprise, imported when the first target needs it: it takes 35 MB and half a second."""
    with extras.needed("alerts"):
        import apprise
    log = logging.getLogger("apprise")
    log.propagate = False
    log.setLevel(logging.WARNING)
    log.addHandler(logging.NullHandler())
    return apprise


def _why(
    warnings: list[str],
    url: str,
    otherwise: str,
) -> str:
    """The reason in one line, without what is secret in the address."""
    text = " ".join(" ".join(warnings).split()) or otherwise
    for secret in sorted(_secrets(url), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return redact(text)[:LONGEST_REASON]


def _secrets(url: str) -> set[str]:
    """Every part of an address that may be secret: all but the service's name and the host."""
    parts = urlsplit(url)
    found = {url, parts.path.strip("/"), parts.query, parts.netloc.rpartition("@")[0]}
    found |= set(parts.path.split("/"))
    found |= {parts.username or "", parts.password or ""}
    found |= {value for _, value in parse_qsl(parts.query)}
    if parts.scheme not in {"mailto", "mailtos", "json", "jsons"}:
        found.add(parts.netloc)  # the host of many services is a token
    found |= {unquote(part) for part in found}
    return {part for part in found if len(part) >= SHORTEST_SECRET}
