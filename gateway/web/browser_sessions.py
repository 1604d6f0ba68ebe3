"""Browser sessions, kept in memory: a cookie holds a random id, and never the token itself.

A cookie goes to every port and every path prefix of its host that it fits. A program there then
learns the id, which only this gateway knows and forgets at sign-out, and not a token.
"""

import secrets
from collections import OrderedDict
from typing import NamedTuple

from gateway.web.tokens import Token

SESSION_SECONDS = 12 * 3600
MAX_SESSIONS = 10_000


class _Session(NamedTuple):
    token: Token
    expires_at: float


class Sessions:
    """The sessions of one gateway. They end with its process; their users then sign in again.

    `clock` is in seconds and never goes back.
    """

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def begin(self, token: Token, clock: float) -> str:
        """The id of a new session. The oldest session ends where there are MAX_SESSIONS."""
        session_id = secrets.token_urlsafe(32)
        self._sessions[session_id] = _Session(token, clock + SESSION_SECONDS)
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return session_id

    def token(self, session_id: str, clock: float) -> Token | None:
        """The token that the session was begun with; None for one that is unknown or has ended."""
        session = self._sessions.get(session_id)
        if session is None:
            return None
        if session.expires_at <= clock:
            del self._sessions[session_id]
            return None
        return session.token

    def end(self, session_id: str) -> None:
        """Forgets a session."""
        self._sessions.pop(session_id, None)
