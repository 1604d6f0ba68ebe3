"""Every error as a problem document (RFC 9457). The one place where errors become HTTP.

Litestar's own plugin swaps title and detail and leaves 500s as plain JSON, hence this file. What an error of
ours says inside stays in the log: a 500 tells only that there is an entry.
"""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from litestar.openapi.datastructures import ResponseSpec
from msgspec import UNSET, Struct, UnsetType

from bus.errors import BadMessageError, GpupingError, RefusedError, UnavailableError

log = structlog.get_logger("gateway")

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
_NAMES = {"file_format": "format"}  # parameters that are called otherwise in our code
_WHERE = re.compile(r" - at `(?P<path>[^`]+)`$")


class FieldError(Struct, kw_only=True, frozen=True):
    """One thing wrong with a request: a place in its body (JSON pointer) or the name of a parameter."""

    detail: str
    pointer: str | UnsetType = UNSET
    parameter: str | UnsetType = UNSET


class Problem(Struct, kw_only=True, frozen=True):
    """The document, for the OpenAPI description. Some problems carry more members (`ping`, `missing`)."""

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[FieldError, ...] | UnsetType = UNSET


class ProblemError(GpupingError):
    """An answer that is an error. `extra` become further members of the document."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: tuple[FieldError, ...] = (),
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})
        self.extra = extra
        if status in {429, 503}:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))

    def document(self) -> dict[str, Any]:
        """The members, in the order in which people read them."""
        members: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            members["errors"] = self.errors
        return members | self.extra


def problem_of(error: Exception) -> ProblemError:  # noqa: PLR0911  # one line a kind of error is the table itself
    """The problem that an error is to the outside."""
    match error:
        case ProblemError():
            return error
        case BadMessageError():
            return bad_request(str(error))
        case UnavailableError():
            return ProblemError(503, str(error))
        case RefusedError():
            return ProblemError(error.code if error.code in _STATUSES else 500, error.detail)
        case MethodNotAllowedException():
            allow = {key.title(): value for key, value in (error.headers or {}).items()}
            return ProblemError(
                405, "this address does not know that method; see Allow", headers=allow
            )
        case NotFoundException():
            return ProblemError(404, "nothing is at this address")
        case ValidationException():
            return _invalid_parameters(error)
        case HTTPException() if 400 <= error.status_code < 500:
            return ProblemError(error.status_code, error.detail)
        case _:
            log.error("request_crashed", exc_info=error)
            return ProblemError(500, "an error of ours; the gateway's log has the details")


_STATUSES = frozenset(status.value for status in HTTPStatus if status >= 400)


def bad_request(text: str) -> ProblemError:
    """400 with the place in the body, where msgspec names one: `... - at `$.capabilities[0]``."""
    place = _WHERE.search(text)
    if not place:
        return ProblemError(400, text)
    detail = text[: place.start()].replace("`", "")
    pointer = "#" + re.sub(
        r"[.\[]", "/", place["path"].removeprefix("$").partition("[...]")[0]
    ).replace("]", "")
    return ProblemError(
        400, f"{detail} at {pointer}", errors=(FieldError(detail=detail, pointer=pointer),)
    )


def bad_body(text: str, pointer: str = "#") -> ProblemError:
    """`bad_request` for a body: `errors` is always there, and what names no place is wrong at `pointer`."""
    problem = bad_request(text)
    if problem.errors:
        return problem
    return ProblemError(
        problem.status, problem.detail, errors=(FieldError(detail=problem.detail, pointer=pointer),)
    )


def _invalid_parameters(error: ValidationException) -> ProblemError:
    listed = error.extra if isinstance(error.extra, list) else []
    errors = tuple(
        FieldError(
            detail=str(item["message"]).replace("`", ""),
            parameter=_parameter(str(item.get("key", ""))),
        )
        for item in listed
        if isinstance(item, dict) and "message" in item
    )
    detail = (
        "; ".join(f"{item.parameter}: {item.detail}" for item in errors)
        or "a parameter is not valid"
    )
    return ProblemError(400, detail, errors=errors)


def _parameter(key: str) -> str:
    name = key.partition(".")[0]
    return _NAMES.get(name, name)


def handle(_request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Litestar's hook for whatever a route, or the routing itself, raises."""
    problem = problem_of(error)
    return Response(
        problem.document(),
        status_code=problem.status,
        headers=problem.headers,
        media_type=MEDIA_TYPE,
    )


def error_responses(*statuses: int) -> dict[int, ResponseSpec]:
    """What the OpenAPI description says of a route's errors."""
    return {
        status: ResponseSpec(
            Problem,
            description=HTTPStatus(status).phrase,
            media_type=MEDIA_TYPE,
            generate_examples=False,
        )
        for status in sorted({*statuses, 400, 500, 503})
    }


def as_asgi(problem: ProblemError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body, for the door, which answers before any route is reached."""
    body = json.dumps(problem.document()).encode()
    headers = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), **problem.headers}
    return (
        problem.status,
        [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        body,
    )
