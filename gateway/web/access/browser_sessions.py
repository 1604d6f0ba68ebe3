"""Browser sessions: a cookie holds a signed random id, and never the token itself.

A cookie goes to every port and every path prefix of its host that it fits. A program there then
learns an id, which only gateways with the same key accept and which ends, and not a token. The key
is kept in the data dir, so that a session outlives a restart of the gateway.
"""

import base64
import hashlib
import hmac
import os
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import structlog

from bus.errors import GpupingError
from bus.identity.tokens import Token
from bus.private_files import open_private, private_folder

log = structlog.get_logger("gateway.web.access.browser_sessions")

SESSION_SECONDS = 12 * 3600
MAX_ENDED = 10_000
KEY_BYTES = 32
_NONCE_BYTES = 16
_ID_BYTES = 16
_TIME_BYTES = 8
_SIGNATURE_BYTES = 32


class Sessions:
    """Makes and recognises the sessions that are signed with `key`.

    `now` is in seconds since 1970. A session that was ended is refused by this process until it
    would have expired; the last MAX_ENDED of them are remembered.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._ended: OrderedDict[str, None] = OrderedDict()

    def begin(self, token: Token, now: float) -> str:
        """The id of a new session of a token."""
        expires_at = int(now + SESSION_SECONDS).to_bytes(_TIME_BYTES, "big")
        content = secrets.token_bytes(_NONCE_BYTES) + self._id_of(token) + expires_at
        return base64.urlsafe_b64encode(content + self._sign(content)).decode().rstrip("=")

    def token(
        self,
        session_id: str,
        tokens: Iterable[Token],
        now: float,
    ) -> Token | None:
        """The token of a session; None for one that is unknown, has ended, or lost its token."""
        if session_id in self._ended:
            return None
        try:
            data = base64.urlsafe_b64decode(session_id + "=" * (-len(session_id) % 4))
        except ValueError:
            return None
        content, signature = data[:-_SIGNATURE_BYTES], data[-_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(content)):
            return None
        if int.from_bytes(content[-_TIME_BYTES:], "big") <= now:
            return None
        wanted = content[_NONCE_BYTES : _NONCE_BYTES + _ID_BYTES]
        for token in tokens:
            if hmac.compare_digest(self._id_of(token), wanted):
                return token
        return None

    def end(self, session_id: str) -> None:
        """Refuses a session from now on."""
        self._ended[session_id] = None
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)

    def _id_of(self, token: Token) -> bytes:
        text = f"{token.name} {token.sha256}".encode()
        return hmac.digest(self._key, b"token " + text, hashlib.sha256)[:_ID_BYTES]

    def _sign(self, content: bytes) -> bytes:
        return hmac.digest(self._key, b"session " + content, hashlib.sha256)


def session_key(data_dir: Path) -> bytes:
    """The key of the data dir, made where there is none.

    Where the data dir cannot be used, the key lasts as long as this process.
    """
    try:
        private_folder(data_dir, "GPUPING_DATA_DIR")
        with open_private(data_dir / "gateway-session.key", os.O_SYNC) as file:
            key = file.read(KEY_BYTES)
            if len(key) == KEY_BYTES:
                return key
            key = secrets.token_bytes(KEY_BYTES)
            file.seek(0)
            file.truncate()
            file.write(key)
            return key
    except (GpupingError, OSError) as error:
        log.info("session_key_not_kept", detail=str(error), action="browsers sign in again")
        return secrets.token_bytes(KEY_BYTES)
