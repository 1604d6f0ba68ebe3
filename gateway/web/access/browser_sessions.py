"""Browser sessions: a cookie holds a signed random id, and never the token itself.

A cookie goes to every port and every path prefix of its host that it fits. A program there then
learns an id, which only gateways with the same key accept and which ends, and not a token. The key
is kept in the data dir, so that a session outlives a restart of the gateway.
"""

import base64
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

import structlog

from bus.errors import GpupingError
from bus.identity.tokens import Token
from bus.private_files import open_private, private_folder
from gateway.web.access.ended_sessions import MAX_ENDED, EndedSession, EndedSessions

log = structlog.get_logger("gateway.web.access.browser_sessions")

SESSION_SECONDS = 12 * 3600
KEY_BYTES = 32
_NONCE_BYTES = 16
_ID_BYTES = 16
_TIME_BYTES = 8
_SIGNATURE_BYTES = 32
_NOTICE_LINE = re.compile(rb"([0-9a-f]{64} \d{1,12}) ([0-9a-f]{32})")


class Sessions:
    """Makes and recognises the sessions that are signed with `key`.

    `folder` is where sessions that were ended are remembered; None for this process alone. `now` is
    in seconds since 1970.
    """

    def __init__(self, key: bytes, folder: Path | None = None) -> None:
        self._key = key
        self._ended = EndedSessions(folder)

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
        content = self._content_of(session_id, now)
        if content is None or self._ended.has(_digest(content)):
            return None
        wanted = content[_NONCE_BYTES : _NONCE_BYTES + _ID_BYTES]
        for token in tokens:
            if hmac.compare_digest(self._id_of(token), wanted):
                return token
        return None

    def end(self, session_id: str, now: float) -> bytes:
        """Refuses a session from now on.

        Returns the notice of it for gateways elsewhere; empty for a session that is none of ours.
        """
        content = self._content_of(session_id, now)
        if content is None:
            return b""
        ended = EndedSession(_digest(content), _expires_at(content))
        self._ended.add([ended], now)
        return self._notice([ended])

    def notice_of_all(self) -> bytes:
        """The notice of every session that is remembered as ended."""
        return self._notice(self._ended.all())

    def hear(self, notice: bytes, now: float) -> None:
        """Refuses the sessions that another gateway with the same key has ended.

        Anybody may have sent the notice, so that each line of it is signed.
        """
        heard: list[EndedSession] = []
        for line in notice.splitlines()[:MAX_ENDED]:
            match = _NOTICE_LINE.fullmatch(line)
            if match is None:
                continue
            text, signature = match.groups()
            if hmac.compare_digest(signature, self._signature_of_notice(text)):
                digest, expires_at = text.decode().split()
                heard.append(EndedSession(digest, int(expires_at)))
        self._ended.add(heard, now)

    def _content_of(self, session_id: str, now: float) -> bytes | None:
        """What a session id holds; None for one that is not signed by us or has expired."""
        try:
            data = base64.urlsafe_b64decode(session_id + "=" * (-len(session_id) % 4))
        except ValueError:
            return None
        content, signature = data[:-_SIGNATURE_BYTES], data[-_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(content)):
            return None
        if _expires_at(content) <= now:
            return None
        return content

    def _notice(self, sessions: Iterable[EndedSession]) -> bytes:
        lines: list[bytes] = []
        for digest, expires_at in sessions:
            text = f"{digest} {expires_at}".encode()
            lines.append(text + b" " + self._signature_of_notice(text))
        return b"\n".join(lines)

    def _signature_of_notice(self, text: bytes) -> bytes:
        signature = hmac.digest(self._key, b"ended " + text, hashlib.sha256)
        return signature[:_ID_BYTES].hex().encode()

    def _id_of(self, token: Token) -> bytes:
        text = f"{token.name} {token.sha256}".encode()
        return hmac.digest(self._key, b"token " + text, hashlib.sha256)[:_ID_BYTES]

    def _sign(self, content: bytes) -> bytes:
        return hmac.digest(self._key, b"session " + content, hashlib.sha256)


def _digest(content: bytes) -> str:
    """The hash of what a session id holds. One content can be written as many ids."""
    return hashlib.sha256(content).hexdigest()


def _expires_at(content: bytes) -> int:
    return int.from_bytes(content[-_TIME_BYTES:], "big")


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
