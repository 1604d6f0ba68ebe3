"""The signed webhook, as the Standard Webhooks specification has it (docs/alerts.md#webhook).

Three headers come with each message: `webhook-id`, which stays the same when a message is sent
again, `webhook-timestamp`, and `webhook-signature`: `v1,` and the base64 of
HMAC-SHA256(secret, "<id>.<timestamp>.<body>").
"""

import base64
import hashlib
import hmac
import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.parse import urlsplit

import msgspec

from bus.addresses import is_loopback
from bus.contract.alerts import Notification
from gpuping.alerts.deliver.channels.errors import SendingError
from gpuping.alerts.rules.alerts_file import secret_key

ANSWER_SECONDS = 10.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A signed message goes to the address that the operator wrote down, and to no other."""

    def redirect_request(
        self,
        req: urllib.request.Request,  # noqa: ARG002  # the base class's
        fp: IO[bytes],  # noqa: ARG002
        code: int,  # noqa: ARG002
        msg: str,  # noqa: ARG002
        headers: HTTPMessage,  # noqa: ARG002
        newurl: str,  # noqa: ARG002
    ) -> None:
        return None


def send(
    url: str,
    secret: str,
    notification: Notification,
) -> None:
    """Posts a notification. Raises SendingError unless the answer is 2xx. This blocks."""
    body = body_of(notification)
    headers = {
        "content-type": "application/json",
        "user-agent": "gpuping",
    } | signature_headers(secret, notification.notification_id, int(time.time()), body)
    request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310  # see Target
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if is_loopback(urlsplit(url).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    try:
        with opener.open(request, timeout=ANSWER_SECONDS):
            return
    except urllib.error.HTTPError as error:
        raise SendingError(f"the webhook answered {error.code}") from None
    except urllib.error.URLError as error:
        raise SendingError(f"the webhook was not reached: {_reason(error.reason)}") from None
    except (OSError, HTTPException) as error:
        raise SendingError(f"the webhook failed: {_reason(error)}") from None


def body_of(notification: Notification) -> bytes:
    """What is posted; the same bytes in every attempt."""
    changes = []
    for change in notification.changes:
        changes.append(
            {
                "change_id": change.change_id,
                "rule": change.rule,
                "kind": change.kind,
                "about": change.about,
                "at": change.at,
                "since": change.since,
                "detail": change.detail,
                "labels": change.labels,
            }
        )
    return msgspec.json.encode(
        {
            "schema_version": 1,
            "notification_id": notification.notification_id,
            "target": notification.target,
            "severity": notification.severity,
            "title": notification.title,
            "text": notification.text,
            "made_at": notification.made_at,
            "changes": changes,
        }
    )


def signature_headers(
    secret: str,
    notification_id: str,
    timestamp: int,
    body: bytes,
) -> dict[str, str]:
    """The headers by which a receiver knows the sender, and a message that comes twice."""
    signed = f"{notification_id}.{timestamp}.".encode() + body
    digest = hmac.new(secret_key(secret), signed, hashlib.sha256).digest()
    return {
        "webhook-id": notification_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def _reason(error: object) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__ if isinstance(error, Exception) else str(error)
