"""Reads the files that are verified: docs/verify.md says what each of them has.

- the JSON of a page of history with evidence (`gpuping history ID --evidence --json`)
- a statement bundle (`gpuping report ID --format bundle`)
- a Parquet export of history (`gpuping export history ID --format parquet`)
- a day of the archive: its folder, or its file `pings-*.parquet` or `evidence-*.parquet`
"""

import glob
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gpuping.verification import fields
from gpuping.verification.fields import MOST_MS, MOST_US, Fields
from gpuping.verification.records import InputError, Recorded, Times
from gpuping.verification.statement import OUTCOMES, Statement, read_statement

BUNDLE_FORMAT = "gpuping-statement-bundle"
BUNDLE_VERSION = 1
MOST_JSON_BYTES = 512 * 1024 * 1024  # a month of the largest reports every 15 minutes is 200 MB
ROWS_AT_ONCE = 1000
NOT_READABLE = "neither JSON nor a file whose name ends in .parquet"
VERDICTS = ("first", "good", "poor", "excused")
_ARCHIVE_FILE = re.compile(r"(pings|evidence)-([0-9]+)\.parquet")


class Content(NamedTuple):
    """The outcomes of a file, oldest first of each agent, and the statement that rests on them."""

    outcomes: Iterator[Recorded]
    statement: Statement | None = None


def read(path: Path) -> Iterator[Content]:
    """Yields the contents of a file, or of each day in a folder. Raises InputError."""
    if path.is_dir():
        found = _newest_generations(path)
        if not found:
            raise InputError(f"{path}: it has no file pings-*.parquet")
        for file in found:
            yield Content(_of_file(file, _archived(file)))
    elif _ARCHIVE_FILE.fullmatch(path.name):
        yield Content(_of_file(path, _archived(path)))
    elif path.suffix == ".parquet":
        yield Content(_of_file(path, _exported(path)))
    else:
        try:
            yield _document(path)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


def _of_file(path: Path, outcomes: Iterator[Recorded]) -> Iterator[Recorded]:
    """Yields the outcomes; the errors in reading them begin with the file's name."""
    try:
        yield from outcomes
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _document(path: Path) -> Content:
    """A bundle, or a page of history."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_JSON_BYTES + 1)
    except OSError as error:
        raise InputError(error.strerror or str(error)) from None
    if len(content) > MOST_JSON_BYTES:
        raise InputError(f"it is larger than {MOST_JSON_BYTES // 1024**2} MiB, and no bundle is")
    try:
        document = fields.parse(content)
    except (ValueError, RecursionError, MemoryError) as error:
        if content.lstrip().startswith(b"{"):
            raise InputError(_why_damaged(error)) from None
        raise InputError(NOT_READABLE) from None
    if not isinstance(document, dict):
        raise InputError("not one of the files that `gpuping verify --help` names")
    if "format" in document:
        return _bundle(Fields(document, "bundle"))
    if "pings" in document:
        return _page(Fields(document, "page"))
    raise InputError("not one of the files that `gpuping verify --help` names")


def _why_damaged(error: Exception) -> str:
    """Where a document that begins as JSON goes wrong; a cut one, where it does not end."""
    if isinstance(error, json.JSONDecodeError):
        place = f"line {error.lineno}, column {error.colno}"
        is_at_end = error.pos >= len(error.doc.rstrip())
        if is_at_end or error.msg.startswith("Unterminated string"):
            return f"it was cut off: what begins at {place} does not end"
        return f"it was damaged: its JSON is wrong at {place}"
    if isinstance(error, UnicodeDecodeError):
        return f"it was damaged: its byte {error.start} is not UTF-8"
    return "it has numbers, or values in each other, that JSON of these files never has"


def _page(document: Fields) -> Content:
    outcomes = [_outcome_of_page(ping) for ping in document.objects("pings")]
    outcomes.sort(key=lambda one: (one.agent_id, one.pinged_us, one.ping_seq))
    return Content(iter(outcomes))


def _outcome_of_page(ping: Fields) -> Recorded:
    times = None
    if not ping.is_null("seconds"):
        times = ping.seconds("seconds")
    report = None
    signature = None
    if not ping.is_null("evidence"):
        evidence = ping.fields("evidence")
        report = evidence.optional_text("report")
        signature = evidence.optional_text("signature")
    return _recorded(
        ping,
        pinged_us=ping.microseconds("pinged_at"),
        times=times,
        remarks=ping.texts("remarks"),
        report=report,
        signature=signature,
    )


def _recorded(
    row: Fields,
    *,
    pinged_us: int,
    times: Times | None,
    remarks: tuple[str, ...],
    report: str | None,
    signature: str | None,
) -> Recorded:
    """An outcome of a page of history or of an export, whose other fields have the same names."""
    verdict = row.word("verdict", VERDICTS)
    return Recorded(
        agent_id=row.text("agent_id"),
        ping_seq=row.whole("ping_seq"),
        pinged_us=pinged_us,
        outcome=row.word("outcome", OUTCOMES),
        verdict=verdict,
        uptime_percent=_judged_percent(verdict, row.optional_number("uptime_percent")),
        since_us=_since_us(pinged_us, times, row.optional_number("window_seconds")),
        times=times,
        response_ms=row.optional_number("response_ms") or 0.0,
        remarks=remarks,
        report=_bytes(report),
        signature=signature or "",
    )


def _bundle(document: Fields) -> Content:
    version = document.value("version")
    if document.value("format") != BUNDLE_FORMAT or version is True or version != BUNDLE_VERSION:
        raise InputError(f"expected {BUNDLE_FORMAT} of version {BUNDLE_VERSION}")
    agent_id = document.text("agent_id")
    outcomes = [_outcome_of_bundle(agent_id, one) for one in document.objects("outcomes")]
    outcomes.sort(key=lambda one: (one.pinged_us, one.ping_seq))
    statement = read_statement(document.fields("statement"))
    if (statement.agent_id, statement.month) != (agent_id, document.text("month")):
        raise InputError("bundle.statement: it is of another agent or month than the bundle")
    return Content(iter(outcomes), statement)


def _outcome_of_bundle(agent_id: str, one: Fields) -> Recorded:
    gpus = one.fields("gpus_ms")
    verdict = one.word("verdict", VERDICTS)
    return Recorded(
        agent_id=agent_id,
        ping_seq=one.whole("ping_seq"),
        pinged_us=one.whole("pinged_us", MOST_US),
        outcome=one.word("outcome", OUTCOMES),
        verdict=verdict,
        uptime_percent=_judged_percent(verdict, one.optional_number("uptime_percent")),
        since_us=None if one.is_null("since_us") else one.whole("since_us", MOST_US),
        times=None if one.is_null("times_ms") else one.times("times_ms"),
        response_ms=(one.optional_number("response_us") or 0) / 1000,
        remarks=one.texts("remarks"),
        gpus={uuid: gpus.times(uuid) for uuid in gpus.names()},
        report=_bytes(one.optional_text("report")),
        signature=one.optional_text("signature") or "",
    )


def _exported(path: Path) -> Iterator[Recorded]:
    query = (
        "SELECT * EXCLUDE (pinged_at, next_ping_at), epoch_us(pinged_at) AS pinged_us "
        "FROM read_parquet(?) "
        "ORDER BY agent_id, pinged_at, ping_seq"
    )
    for row in _rows(query, [path]):
        if "signature" not in row:
            raise InputError("it has no reports; export the table history again")
        times = None
        if not row.is_null("up_seconds"):
            values = (row.number(f"{state}_seconds") for state in Times._fields)
            times = Times(*(round(value * 1000) for value in values))
        yield _recorded(
            row,
            pinged_us=row.whole("pinged_us", MOST_US),
            times=times,
            remarks=tuple((row.optional_text("remarks") or "").split()),
            report=row.optional_text("report"),
            signature=row.optional_text("signature"),
        )


def _archived(path: Path) -> Iterator[Recorded]:
    matched = _ARCHIVE_FILE.fullmatch(path.name)
    assert matched is not None  # noqa: S101  # the caller saw to it
    pings = path.with_name(f"pings-{matched[2]}.parquet")
    evidence = path.with_name(f"evidence-{matched[2]}.parquet")
    if not pings.exists():
        yield from _evidence_alone(path)
        return
    if evidence.exists():
        query = (
            "SELECT p.*, e.payload, e.signature FROM read_parquet(?, hive_partitioning = false) p "
            "LEFT JOIN read_parquet(?, hive_partitioning = false) e "
            "USING (agent_id, ping_seq, pinged_us) ORDER BY p.agent_id, p.pinged_us, p.ping_seq"
        )
        files = [pings, evidence]
    else:
        query = (
            "SELECT *, NULL AS payload, NULL AS signature "
            "FROM read_parquet(?, hive_partitioning = false) ORDER BY agent_id, pinged_us, ping_seq"
        )
        files = [pings]
    for row in _rows(query, files):
        yield _outcome_of_archive(row)


def _outcome_of_archive(row: Fields) -> Recorded:
    times = None
    if not row.is_null("up_ms"):
        values = []
        for state in Times._fields:
            name = f"{state}_ms"
            values.append(0 if row.is_null(name) else row.whole(name, MOST_MS))
        times = Times(*values)
    pinged_us = row.whole("pinged_us", MOST_US)
    since_us = None
    if row.is_null("until_ms") and not row.is_null("since_ms") and times is not None:
        since_us = pinged_us - 1000 * (row.signed("since_ms") + times.total)
    verdict = row.word("verdict", VERDICTS)
    return Recorded(
        agent_id=row.text("agent_id"),
        ping_seq=row.whole("ping_seq"),
        pinged_us=pinged_us,
        outcome=row.word("outcome", OUTCOMES),
        verdict=verdict,
        uptime_percent=_judged_percent(verdict, row.optional_number("uptime_percent")),
        since_us=since_us,
        times=times,
        response_ms=(row.optional_number("response_us") or 0) / 1000,
        remarks=_remarks(row),
        report=_bytes(row.optional_text("payload")),
        signature=row.optional_text("signature") or "",
    )


def _remarks(row: Fields) -> tuple[str, ...]:
    """Returns the remarks of a row of the archive, which has them as a list in JSON."""
    text = row.optional_text("remarks")
    if text is None:
        return ()
    try:
        remarks = fields.parse(text.encode())
    except (ValueError, RecursionError):
        raise InputError(f"{row.place}.remarks: no JSON") from None
    return Fields({"remarks": remarks}, row.place).texts("remarks")


def _evidence_alone(path: Path) -> Iterator[Recorded]:
    """Reports without their rows. Whether one was refused is not known: the signed ones counted."""
    query = (
        "SELECT * FROM read_parquet(?, hive_partitioning = false) "
        "ORDER BY agent_id, pinged_us, ping_seq"
    )
    for row in _rows(query, [path]):
        signature = row.optional_text("signature") or ""
        yield Recorded(
            agent_id=row.text("agent_id"),
            ping_seq=row.whole("ping_seq"),
            pinged_us=row.whole("pinged_us", MOST_US),
            outcome="answered" if signature else "missed",
            report=_bytes(row.optional_text("payload")),
            signature=signature,
            has_row=False,
        )


def _rows(query: str, files: list[Path]) -> Iterator[Fields]:
    import duckdb

    names = []
    for file in files:
        try:
            str(file).encode()
        except UnicodeEncodeError:
            raise InputError("its name is not UTF-8, and DuckDB opens no such file") from None
        names.append(glob.escape(str(file)))  # DuckDB would take * and ? for a pattern
    try:
        with duckdb.connect() as connection:
            result = connection.execute(query, names)
            columns = [column[0] for column in result.description or []]
            while rows := result.fetchmany(ROWS_AT_ONCE):
                for row in rows:
                    yield _named(dict(zip(columns, row, strict=True)))
    except duckdb.Error as error:
        raise InputError(str(error).splitlines()[0]) from None


def _named(row: dict[str, object]) -> Fields:
    """The fields of a row. Its place, for messages, is its agent and ping."""
    return Fields(row, f"ping {row.get('ping_seq')} of {row.get('agent_id')}")


def _newest_generations(folder: Path) -> list[Path]:
    """Returns the newest file of pings of each day below a folder, in the order of the days."""
    newest: dict[Path, tuple[int, Path]] = {}
    for file in folder.rglob("pings-*.parquet"):
        matched = _ARCHIVE_FILE.fullmatch(file.name)
        if matched is not None:
            candidate = (int(matched[2]), file)
            newest[file.parent] = max(candidate, newest.get(file.parent, candidate))
    return [newest[day][1] for day in sorted(newest)]


def _since_us(pinged_us: int, times: Times | None, window_seconds: float | None) -> int | None:
    """Returns when the window of an answered ping began; None where nothing was accounted."""
    if times is None or window_seconds is None:
        return None
    return pinged_us - round(window_seconds * 1000) * 1000


def _judged_percent(verdict: str, percent: float | None) -> float | None:
    """The percentage that a ping was judged by; None where it was not judged."""
    if verdict in {"good", "poor"}:
        return percent
    return None


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()
