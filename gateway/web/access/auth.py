"""Who may do what: bearer tokens, roles, browser sessions, and protection from foreign web pages.

Without a tokens file the gateway listens on loopback only, and a web page open on the same machine
is the threat. Such a page may use a host name of its own that resolves to 127.0.0.1 (DNS
rebinding), or post a form across sites. The Host header gives away the first, the browser's
Sec-Fetch-Site and Origin headers the second.
"""

import math
import re
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, NamedTuple

from bus.addresses import is_ip_address, is_loopback
from bus.clock import boottime, utc_now
from bus.identity.tokens import RANK, Token, TokenFile, TokenRole, verify
from bus.rate_limit import RateLimit
from gateway.web.access.browser_sessions import KEY_BYTES, SESSION_SECONDS, Sessions
from gateway.web.access.public_address import PublicAddress, normal_origin
from gateway.web.problems import ProblemError

COOKIE = "gpuping_session"
FAILURES_PER_SECOND = 1.0
FAILURES_AT_ONCE = 20.0
CALLER_SCOPE_KEY = "gpuping.caller"  # where the ASGI scope holds the caller's token
BURST_SECONDS = 4.0  # a caller may spend the requests of this long at once
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::\d*)?")  # group 1: the host without its port
_READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CHOSEN_AGENTS_PATH = "/ping-system/chosen-agents"
# their bodies only ask
_READING_POSTS = frozenset({"/gpu-check", "/worker/gpu-check", CHOSEN_AGENTS_PATH})
AUDIT_PATH = "/ping-system/audit"
MAINTENANCE_PATH = "/ping-system/maintenance"
ALERTS_PATH = "/ping-system/alerts"
STATUS_PAGES_PATH = "/ping-system/status-pages"
LINKS_PATH = "/ping-system/links"
_ADMIN_PATHS = frozenset({AUDIT_PATH})
# what operators make, they may also take away
_OPERATORS_PATHS = (MAINTENANCE_PATH, f"{ALERTS_PATH}/silences", STATUS_PAGES_PATH, LINKS_PATH)
# each decides by itself: by the name of a page, or by the secret of a link
_OPEN_PREFIXES = ("/static/", "/status/", "/host/")
_BADGE_PREFIX = "/badge/"
_LONGEST_ID = 63
_PUBLIC_PATHS = frozenset({"/", "/map", "/healthz", "/readyz", "/login", "/logout", "/favicon.ico"})


class RequestHead(NamedTuple):
    """What is known of a request before it is routed. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    client: str  # the peer's address; `?` where the server knows none


class EndedCookie(NamedTuple):
    """A session that was signed out.

    `set_cookie` is the Set-Cookie value that removes its cookie, `notice` is for other gateways; it
    is empty where there was no session.
    """

    set_cookie: str
    notice: bytes


class Guard:
    """Decides whether a request may pass, and raises the problem to answer with if not.

    `tokens` is None without a tokens file. Every local caller may then do everything. `sessions`
    are those of browsers. `public_address` is where browsers reach the gateway; None where that is
    its own address.
    """

    def __init__(
        self,
        tokens: TokenFile | None,
        requests_per_second: float,
        public_address: PublicAddress | None = None,
        sessions: Sessions | None = None,
    ) -> None:
        burst = requests_per_second * BURST_SECONDS
        self._tokens = tokens
        self._public_address = public_address
        self._sessions = sessions or Sessions(secrets.token_bytes(KEY_BYTES))
        self._requests = RateLimit(requests_per_second, burst)
        self._failures = RateLimit(FAILURES_PER_SECOND, FAILURES_AT_ONCE)

    @property
    def is_open(self) -> bool:
        """True without a tokens file."""
        return self._tokens is None

    @property
    def public_prefix(self) -> str:
        """What browsers have before the gateway's own paths, such as `/gpuping`; may be empty."""
        if self._public_address is None:
            return ""
        return self._public_address.path.rstrip("/")

    @property
    def public_root(self) -> str | None:
        """The whole address that the gateway's own paths follow; None where it is not known."""
        if self._public_address is None:
            return None
        return f"{self._public_address.origin}{self.public_prefix}"

    def admit(self, request: RequestHead) -> Token | None:
        """The caller's token, or None where none is needed. Raises a 401, 403 or 429 problem."""
        if self.is_open:
            _check_host(request)
        if request.method in _READING_METHODS:
            _check_embedding(request)
        else:
            self._check_origin(request)
        token = self._authenticate(request)
        wait = self._requests.take(_caller(token, request.client), boottime())
        if wait:
            raise _too_many("too many requests", wait)
        return token

    def may_go_on(self, token: Token | None, headers: Mapping[str, str]) -> bool:
        """Whether a request that `admit` has let in may still be answered.

        Its token must be in the file and must not have expired, and its session must not have
        ended. `headers` are the request's, with names in lower case.
        """
        if not self._is_valid(token):
            return False
        if self._tokens is None or token is None or _bearer_secret(headers) is not None:
            return True
        session_id = _session_id(headers.get("cookie", ""))
        if session_id is None:
            return False
        now = utc_now().timestamp()
        return self._sessions.token(session_id, [token], now) is not None

    def _is_valid(self, token: Token | None) -> bool:
        if self._tokens is None or token is None:
            return True
        if token.expires is not None and token.expires <= utc_now():
            return False
        return token in self._tokens.tokens(boottime())

    def log_in(self, secret: str, client: str) -> Token:
        """The token whose secret this is. Raises a 401 problem, or 429 after too many wrong ones.

        A right secret is accepted however many wrong ones its address sent before: behind a proxy
        all callers share one address.
        """
        clock = boottime()
        token = None
        if self._tokens is not None:
            token = verify(secret, self._tokens.tokens(clock), utc_now())
        if token is not None:
            return token
        wait = self._failures.take(client, clock)
        if wait:
            raise _too_many("too many wrong tokens from this address", wait)
        raise _unauthorized("this token is not known, or has expired")

    def begin_session(
        self,
        secret: str,
        client: str,
        *,
        is_https: bool,
    ) -> str:
        """The Set-Cookie value of a new session. Raises as `log_in` does.

        Scripts cannot read the cookie, and other sites cannot have it sent. It goes to the path of
        the public address only, and over HTTPS only where that address is one.
        """
        token = self.log_in(secret, client)
        session_id = self._sessions.begin(token, utc_now().timestamp())
        is_secure = is_https
        if self._public_address is not None:
            is_secure = self._public_address.is_https
        return self._cookie(session_id, SESSION_SECONDS) + ("; Secure" if is_secure else "")

    def end_session(self, cookie_header: str) -> EndedCookie:
        """Refuses the session of the cookie from now on."""
        session_id = _session_id(cookie_header)
        notice = b""
        if session_id is not None:
            notice = self._sessions.end(session_id, utc_now().timestamp())
        return EndedCookie(self._cookie("", 0), notice)

    def client_of(self, peer: str, forwarded_for: str) -> str:
        """Whose address counts: the peer's, or the one that a proxy on this machine saw.

        `forwarded_for` is the X-Forwarded-For header. Only its last address is the proxy's own
        word; it counts where GATEWAY_PUBLIC_URL says that there is a proxy.
        """
        last = forwarded_for.rpartition(",")[2].strip()
        if self._public_address is None or not is_loopback(peer) or not is_ip_address(last):
            return peer
        return last

    def _cookie(self, value: str, max_age: int) -> str:
        path = "/"
        if self._public_address is not None:
            path = self._public_address.path
        return f"{COOKIE}={value}; Path={path}; Max-Age={max_age}; HttpOnly; SameSite=Strict"

    def _authenticate(self, request: RequestHead) -> Token | None:
        if self._tokens is None or is_public(request.path):
            return None
        token = self._token_of(request)
        needed = role_for(request.method, request.path)
        if RANK[token.role] < RANK[needed]:
            raise ProblemError(403, f"this needs the role {needed}; {token.name} is {token.role}")
        return token

    def _token_of(self, request: RequestHead) -> Token:
        """The token in the Authorization header, else that of the session. Raises a 401 problem."""
        secret = _bearer_secret(request.headers)
        if secret is not None:
            return self.log_in(secret, request.client)
        session_id = _session_id(request.headers.get("cookie", ""))
        if session_id is None:
            raise _unauthorized("a bearer token is needed")
        tokens = self._tokens.tokens(boottime()) if self._tokens is not None else ()
        token = self._sessions.token(session_id, tokens, utc_now().timestamp())
        if token is None or not self._is_valid(token):
            raise _unauthorized("this session has ended: sign in again")
        return token

    def _check_origin(self, request: RequestHead) -> None:
        """Raises a 403 problem for a change that a page of another site asks for.

        Only browsers send these headers; a request without them comes from a program and passes.
        What the browser says of the site suffices, because a proxy may have changed the Host.
        Browsers say nothing of it over plain HTTP; then the Origin must be that of the Host or of
        the public address.
        """
        site = request.headers.get("sec-fetch-site")
        if site == "same-origin":
            return
        origin = request.headers.get("origin")
        if site in {None, "none"} and (origin is None or self._is_own_origin(origin, request)):
            return
        raise ProblemError(403, "a page of another site may not do this (GATEWAY_PUBLIC_URL)")

    def _is_own_origin(self, origin: str, request: RequestHead) -> bool:
        if origin.partition("://")[2] == request.headers.get("host", ""):
            return True
        if self._public_address is None:
            return False
        return normal_origin(origin) == self._public_address.origin


def caller_of(scope: Mapping[str, Any]) -> str:
    """Whose request this is for the limits that are kept for each caller: a token or an address."""
    client = scope.get("client")
    return _caller(scope[CALLER_SCOPE_KEY], client[0] if client else "?")


def _caller(token: Token | None, address: str) -> str:
    if token is None:
        return address
    return f"token {token.name}"


def is_public(path: str) -> bool:
    """Whether a path needs no token.

    Those are probes, sign-in, the page's files, which hold no data, and what operators have made
    public.
    """
    return path in _PUBLIC_PATHS or path.startswith(_OPEN_PREFIXES) or is_sealed_badge(path)


def is_sealed_badge(path: str) -> bool:
    """Whether this is the path of a badge by a link, whose secret is longer than every id."""
    name = path.removeprefix(_BADGE_PREFIX).removesuffix(".svg")
    return path.startswith(_BADGE_PREFIX) and len(name) > _LONGEST_ID


def role_for(method: str, path: str) -> TokenRole:
    """The lowest role that may: viewers read, operators register, ping, book and publish.

    What operators make they may take away; only admins remove agents.

    The audit log is for admins, because it tells who works from where.
    """
    if path.rstrip("/") in _ADMIN_PATHS:
        return "admin"
    if method in _READING_METHODS or path in _READING_POSTS:
        return "viewer"
    if method == "DELETE" and not path.startswith(_OPERATORS_PATHS):
        return "admin"
    return "operator"


def _bearer_secret(headers: Mapping[str, str]) -> str | None:
    """The secret in the Authorization header, or None without one."""
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    secret = secret.strip()
    if scheme.lower() == "bearer" and secret:
        return secret
    return None


def _session_id(cookie_header: str) -> str | None:
    """The id in the session cookie, or None without one."""
    try:
        morsel = SimpleCookie(cookie_header).get(COOKIE)
    except CookieError:
        return None
    if morsel is None:
        return None
    return morsel.value or None


def _unauthorized(detail: str) -> ProblemError:
    return ProblemError(401, detail, headers={"WWW-Authenticate": 'Bearer realm="gpuping"'})


def _too_many(detail: str, wait_seconds: float) -> ProblemError:
    return ProblemError(429, detail, headers={"Retry-After": str(math.ceil(wait_seconds))})


def _check_host(request: RequestHead) -> None:
    """Raises a 403 problem for a Host that is not loopback. A request without a Host passes."""
    host = request.headers.get("host", "")
    if not host:
        return
    match = _HOST.fullmatch(host)
    if match is None or not is_loopback(match[1]):
        raise ProblemError(
            403,
            "without a tokens file this gateway answers only to loopback names, such as localhost",
        )


def _check_embedding(request: RequestHead) -> None:
    """Raises a 403 problem for a read that a page of another site embeds, as an image or a frame.

    Such a page cannot see the answer, but the requests alone could keep storage busy with exports.
    A link to this site passes, and so do badges, which are made to be embedded.
    """
    if _is_from_own_site(request) or request.path.startswith("/badge/"):
        return
    mode = request.headers.get("sec-fetch-mode")
    destination = request.headers.get("sec-fetch-dest")
    if mode != "navigate" or destination != "document":
        raise ProblemError(403, "a page of another site may link to this, but not embed it")


def _is_from_own_site(request: RequestHead) -> bool:
    """Whether the browser says that no other site is behind the request. Programs say nothing."""
    return request.headers.get("sec-fetch-site", "none") in {"none", "same-origin"}
