"""Who may do what: bearer tokens and roles, sessions of browsers, and what a foreign web page must not reach.

Without a tokens file the gateway listens on loopback only. Then a web page on the same machine is the threat: it
may name a host of its own that resolves to 127.0.0.1 (DNS rebinding), or post a form across sites. The Host
header and the fetch metadata of the browser tell both.
"""

import ipaddress
import math
import re
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple

from bus.clock import boottime, utc_now
from gateway.web.problems import ProblemError
from gateway.web.rate_limit import RateLimit
from gateway.web.tokens import RANK, Role, Token, TokenFile, verify

COOKIE = "gpuping_session"
SESSION_SECONDS = 12 * 3600
FAILURES_PER_SECOND, FAILURES_AT_ONCE = 1.0, 20.0
BURST_SECONDS = 4.0
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::\d*)?")  # name or address, without its port
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OPEN = frozenset(
    {"/", "/healthz", "/readyz", "/login", "/logout", "/favicon.ico"}
)  # the page itself holds no data
_READING_POSTS = frozenset({"/gpu-check", "/worker/gpu-check"})


class Call(NamedTuple):
    """What the door knows of a request. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    client: str


class Guard:
    """Lets a request in, or raises the problem that it is."""

    def __init__(self, tokens: TokenFile | None, requests_per_second: float) -> None:
        self._tokens = tokens
        self._requests = RateLimit(requests_per_second, requests_per_second * BURST_SECONDS)
        self._failures = RateLimit(FAILURES_PER_SECOND, FAILURES_AT_ONCE)

    @property
    def is_open(self) -> bool:
        """No tokens: everybody on this machine may do everything."""
        return self._tokens is None

    def admit(self, call: Call) -> Token | None:
        """Who it is (None: nobody needs to be known). Raises 401, 403 or 429."""
        if self.is_open:
            _check_host(call)
        if call.method not in _SAFE:
            _check_origin(call)
        token = self._identify(call)
        self._spend(f"token {token.name}" if token else call.client)
        return token

    def log_in(self, secret: str, client: str) -> Token:
        """The token that somebody typed into the page. Raises 401, or 429 after too many wrong ones."""
        now, clock = utc_now(), boottime()
        if token := verify(secret, self._tokens.tokens(clock), now) if self._tokens else None:
            return token  # whatever others at this address try: a proxy's address is everybody's
        if wait := self._failures.take(client, clock):
            headers = {"Retry-After": str(math.ceil(wait))}
            raise ProblemError(429, "too many wrong tokens from this address", headers=headers)
        raise _unauthorized("this token is not known, or has expired")

    def _identify(self, call: Call) -> Token | None:
        if self._tokens is None or is_public(call.path):
            return None
        secret = _presented(call.headers)
        if secret is None:
            raise _unauthorized("a bearer token is needed")
        token = self.log_in(secret, call.client)
        needed = role_for(call.method, call.path)
        if RANK[token.role] < RANK[needed]:
            raise ProblemError(403, f"this needs the role {needed}; {token.name} is {token.role}")
        return token

    def _spend(self, caller: str) -> None:
        if wait := self._requests.take(caller, boottime()):
            raise ProblemError(
                429, "too many requests", headers={"Retry-After": str(math.ceil(wait))}
            )


def is_public(path: str) -> bool:
    """Needs no token even where tokens are set: probes, and the page's own files, which hold no data."""
    return path in _OPEN or path.startswith("/static/")


def role_for(method: str, path: str) -> Role:
    """The least role: viewers read, operators register and ping, admins remove."""
    if method in _SAFE or path in _READING_POSTS:
        return "viewer"
    return "admin" if method == "DELETE" else "operator"


def is_loopback(host: str) -> bool:
    """A name or address that only this machine can reach."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def session_cookie(secret: str, *, secure: bool) -> str:
    """Set-Cookie for a browser, whose EventSource can send no header. No script reads it, no other site sends it."""
    return _cookie(secret, SESSION_SECONDS, secure=secure)


def no_cookie() -> str:
    """Set-Cookie that ends the session."""
    return _cookie("", 0, secure=False)


def _cookie(value: str, max_age: int, *, secure: bool) -> str:
    flags = "; Secure" if secure else ""
    return f"{COOKIE}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Strict{flags}"


def _presented(headers: dict[str, str]) -> str | None:
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and secret.strip():
        return secret.strip()
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel and morsel.value else None


def _unauthorized(detail: str) -> ProblemError:
    return ProblemError(401, detail, headers={"WWW-Authenticate": 'Bearer realm="gpuping"'})


def _check_host(call: Call) -> None:
    host = call.headers.get("host", "")
    name = _HOST.fullmatch(host)
    if host and not (name and is_loopback(name[1])):
        raise ProblemError(
            403,
            "without a tokens file this gateway answers only to loopback names, such as localhost",
        )


def _check_origin(call: Call) -> None:
    """A browser says where a request comes from; programs say nothing and pass."""
    site = call.headers.get("sec-fetch-site", "none")
    origin = call.headers.get("origin")
    own = call.headers.get("host", "")
    if site not in {"none", "same-origin"} or (
        origin is not None and origin.partition("://")[2] != own
    ):
        raise ProblemError(403, "a page of another site may not do this")
