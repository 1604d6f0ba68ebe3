"""Sessions of browsers: signing in with a token, and signing out."""

from typing import Any

from litestar import Request, Response, post
from litestar.di import NamedDependency
from msgspec import Struct

from gateway.web import json_body
from gateway.web.auth import Guard, expired_session_cookie, session_cookie
from gateway.web.openapi import OperationWithoutContent
from gateway.web.problems import error_responses


class Login(Struct, frozen=True):
    """The token that somebody typed into the page."""

    token: str


@post(
    "/login",
    status_code=204,
    tags=["operation"],
    summary="Begin a browser session",
    operation_class=OperationWithoutContent,
    responses=error_responses(401, 429),
)
async def login(request: Request[Any, Any, Any], guard: NamedDependency[Guard]) -> Response[None]:
    """Sets the session cookie. Without a tokens file there is no session, and no cookie is set.

    Browsers need the cookie because an event stream cannot carry an Authorization header.
    """
    body = await json_body.read_json(request, Login)
    if guard.is_open:
        return Response(None, status_code=204)
    secret = body.token.strip()
    client = request.client.host if request.client else "?"
    guard.log_in(secret, client)
    is_https = request.scope["scheme"] == "https"
    cookie = session_cookie(secret, secure=is_https)
    return Response(None, status_code=204, headers={"Set-Cookie": cookie})


@post(
    "/logout",
    status_code=204,
    tags=["operation"],
    summary="End a browser session",
    operation_class=OperationWithoutContent,
)
async def logout() -> Response[None]:
    """Removes the session cookie."""
    headers = {"Set-Cookie": expired_session_cookie()}
    return Response(None, status_code=204, headers=headers)
