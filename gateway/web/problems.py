"""Every error as a problem document (RFC 9457). The one place where errors become HTTP.

Litestar's own plugin swaps title and detail and leaves a 500 as plain JSON, so it is not used.
The text of an unexpected error stays in the log; the 500 says only that the log has it.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
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

from bus.errors import AgentError, BadMessageError, GpupingError, RefusedError, UnavailableError

log = structlog.get_logger("gateway")

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
_PUBLIC_NAMES = {"file_format": "format"}  # query parameters whose Python name differs
_MSGSPEC_PATH = re.compile(r" - at `(?P<path>[^`]+)`$")
_ERROR_STATUSES = frozenset(status.value for status in HTTPStatus if status >= 400)


class FieldError(Struct, kw_only=True, frozen=True):
    """One fault of a request. It names a place in the body (a JSON pointer) or a parameter."""

    detail: str
    pointer: str | UnsetType = UNSET
    parameter: str | UnsetType = UNSET


class Problem(Struct, kw_only=True, frozen=True):
    """The members of every problem document. Some carry more, such as `ping` or `missing`."""

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[FieldError, ...] | UnsetType = UNSET


class ProblemError(GpupingError):
    """Raised to answer with an error. Keyword arguments in `extra` become members of the document.

    A 429 or 503 always carries a Retry-After header.
    """

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


def problem_of(error: Exception) -> ProblemError:  # noqa: C901, PLR0911  # a table
    """The problem that a client sees for an error.

    A BadMessageError is the caller's fault here, hence 400: a service's unreadable answer is raised
    as BusError. What this table does not know is logged and becomes a 500.
    """
    match error:
        case ProblemError():
            return error
        case BadMessageError():
            return bad_request(str(error))
        case UnavailableError():
            return ProblemError(503, str(error))
        case AgentError():
            return ProblemError(504, str(error))
        case RefusedError() if error.code in _ERROR_STATUSES:
            return ProblemError(error.code, error.detail)
        case RefusedError():
            return ProblemError(500, error.detail)
        case MethodNotAllowedException():
            return _method_not_allowed(error)
        case NotFoundException():
            return ProblemError(404, "nothing is at this address")
        case ValidationException():
            return _invalid_parameters(error)
        case HTTPException() if 400 <= error.status_code < 500:
            return ProblemError(error.status_code, error.detail)
        case _:
            log.error("request_crashed", exc_info=error)
            return ProblemError(500, "an error of ours; the gateway's log has the details")


def _method_not_allowed(error: MethodNotAllowedException) -> ProblemError:
    headers: dict[str, str] = {}
    for name, value in (error.headers or {}).items():
        headers[name.title()] = value
    detail = "this address does not know that method; see Allow"
    return ProblemError(405, detail, headers=headers)


def bad_request(text: str) -> ProblemError:
    """A 400 for an error text of msgspec, such as ``Expected `str` - at `$.capabilities[0]` ``.

    The place that msgspec names becomes a JSON pointer in `errors`; without one, `errors` is empty.
    """
    match = _MSGSPEC_PATH.search(text)
    if match is None:
        return ProblemError(400, text)
    detail = text[: match.start()].replace("`", "")
    pointer = _json_pointer(match["path"])
    field = FieldError(detail=detail, pointer=pointer)
    return ProblemError(400, f"{detail} at {pointer}", errors=(field,))


def _json_pointer(path: str) -> str:
    """`$.a.b[0]` as `#/a/b/0`. msgspec writes `[...]` for any key; the pointer ends before it."""
    known = path.removeprefix("$").partition("[...]")[0]
    return "#" + re.sub(r"[.\[]", "/", known).replace("]", "")


def bad_body(text: str, pointer: str = "#") -> ProblemError:
    """A 400 like `bad_request`, whose `errors` is never empty.

    `pointer` says what is wrong where the text names no place.
    """
    problem = bad_request(text)
    if problem.errors:
        return problem
    return field_problem(problem.detail, pointer=pointer)


def field_problem(
    detail: str,
    *,
    pointer: str | UnsetType = UNSET,
    parameter: str | UnsetType = UNSET,
) -> ProblemError:
    """A 400 for one fault, which lies at `pointer` in the body or in the query `parameter`."""
    field = FieldError(
        detail=detail,
        pointer=pointer,
        parameter=parameter,
    )
    return ProblemError(400, detail, errors=(field,))


def _invalid_parameters(error: ValidationException) -> ProblemError:
    """A 400 that lists what Litestar found wrong with path, query or header parameters."""
    errors: list[FieldError] = []
    sentences: list[str] = []
    for item in error.extra if isinstance(error.extra, list) else []:
        if not isinstance(item, dict) or "message" not in item:
            continue
        detail = str(item["message"]).replace("`", "")
        parameter = _public_name(str(item.get("key", "")))
        errors.append(FieldError(detail=detail, parameter=parameter))
        sentences.append(f"{parameter}: {detail}")
    summary = "; ".join(sentences) or "a parameter is not valid"
    return ProblemError(400, summary, errors=tuple(errors))


def _public_name(key: str) -> str:
    """The parameter's name in the URL. Litestar's key is its Python name and a path into it."""
    name = key.partition(".")[0]
    return _PUBLIC_NAMES.get(name, name)


def handle(_request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Litestar's exception handler, for errors of routes and of routing."""
    problem = problem_of(error)
    return Response(
        problem.document(),
        status_code=problem.status,
        headers=problem.headers,
        media_type=MEDIA_TYPE,
    )


def error_responses(*statuses: int) -> dict[int, ResponseSpec]:
    """The error responses of a route in the OpenAPI document. 400, 500 and 503 are always added."""
    responses: dict[int, ResponseSpec] = {}
    for status in sorted({*statuses, 400, 500, 503}):
        responses[status] = ResponseSpec(
            Problem,
            description=HTTPStatus(status).phrase,
            media_type=MEDIA_TYPE,
            generate_examples=False,
        )
    return responses


def as_asgi(problem: ProblemError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of a problem that is sent before Litestar sees the request."""
    body = msgspec.json.encode(problem.document())
    headers = {
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        **problem.headers,
    }
    encoded: list[tuple[bytes, bytes]] = []
    for name, value in headers.items():
        encoded.append((name.lower().encode(), value.encode("latin-1")))
    return problem.status, encoded, body
