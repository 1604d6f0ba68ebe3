"""Reads the files that are verified: docs/verify.md says what each of them has.

- the JSON of a page of history with evidence (`gpuping history ID --evidence --json`)
- a statement bundle (`gpuping report ID --format bundle`)
- a Parquet export of history (`gpuping export history ID --format parquet`)
- a day of the archive: its folder, or its file `pings-*.parquet` or `evidence-*.parquet`
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gpuping.verification.records import InputError, Recorded, Times
from gpuping.verification.statement import microseconds
from gpuping.verification.windows import times_of

BUNDLE_FORMAT = "gpuping-statement-bundle"
BUNDLE_VERSION = 1
ROWS_AT_ONCE = 1000
_ARCHIVE_FILE = re.compile(r"(pings|evidence)-([0-9]+)\.parquet")


class Content(NamedTuple):
    """The outcomes of a file, oldest first of each agent, and the statement that rests on them."""

    outcomes: Iterator[Recorded]
    statement: dict[str, Any] | None = None


def read(path: Path) -> Iterator[Content]:
    """Yields the contents of a file, or of each day in a folder. Raises InputError."""
    if path.is_dir():
        found = _newest_generations(path)
        if not found:
            raise InputError(f"{path}: it has no file pings-*.parquet")
        for file in found:
            yield Content(_archived(file))
        return
    if path.suffix == ".parquet":
        if _ARCHIVE_FILE.fullmatch(path.name):
            yield Content(_archived(path))
        else:
            yield Content(_exported(path))
        return
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: neither JSON nor a file whose name ends in .parquet") from None
    if not isinstance(document, dict):
        raise InputError(f"{path}: not one of the files that `gpuping verify --help` names")
    try:
        yield _bundle(path, document) if "format" in document else _page(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: a part is missing or of a wrong type: {error}") from None


def _page(document: dict[str, Any]) -> Content:
    outcomes = [_outcome_of_page(ping) for ping in document["pings"]]
    outcomes.sort(key=lambda one: (one.agent_id, one.pinged_us, one.ping_seq))
    return Content(iter(outcomes))


def _outcome_of_page(ping: dict[str, Any]) -> Recorded:
    evidence = ping.get("evidence") or {}
    times = times_of(ping.get("seconds"))
    pinged_us = microseconds(ping["pinged_at"])
    report = evidence.get("report")
    return Recorded(
        agent_id=ping["agent_id"],
        ping_seq=ping["ping_seq"],
        pinged_us=pinged_us,
        outcome=ping["outcome"],
        verdict=ping["verdict"],
        uptime_percent=_judged_percent(ping["verdict"], ping["uptime_percent"]),
        since_us=_since_us(pinged_us, times, ping["window_seconds"]),
        times=times,
        response_ms=ping["response_ms"] or 0.0,
        remarks=tuple(ping["remarks"]),
        report=None if report is None else report.encode(),
        signature=evidence.get("signature") or "",
    )


def _bundle(path: Path, document: dict[str, Any]) -> Content:
    if document["format"] != BUNDLE_FORMAT or document["version"] != BUNDLE_VERSION:
        raise InputError(f"{path}: expected {BUNDLE_FORMAT} of version {BUNDLE_VERSION}")
    agent_id = document["agent_id"]
    outcomes = [_outcome_of_bundle(agent_id, fields) for fields in document["outcomes"]]
    outcomes.sort(key=lambda one: (one.pinged_us, one.ping_seq))
    return Content(iter(outcomes), document["statement"])


def _outcome_of_bundle(agent_id: str, fields: dict[str, Any]) -> Recorded:
    report = fields["report"]
    times = fields["times_ms"]
    return Recorded(
        agent_id=agent_id,
        ping_seq=fields["ping_seq"],
        pinged_us=fields["pinged_us"],
        outcome=fields["outcome"],
        verdict=fields["verdict"],
        uptime_percent=_judged_percent(fields["verdict"], fields["uptime_percent"]),
        since_us=fields["since_us"],
        times=None if times is None else Times(*times),
        response_ms=(fields["response_us"] or 0) / 1000,
        remarks=tuple(fields["remarks"]),
        gpus={uuid: Times(*gpu) for uuid, gpu in fields["gpus_ms"].items()},
        report=None if report is None else report.encode(),
        signature=fields["signature"] or "",
    )


def _exported(path: Path) -> Iterator[Recorded]:
    query = (
        "SELECT * EXCLUDE (pinged_at, next_ping_at), epoch_us(pinged_at) AS pinged_us "
        "FROM read_parquet(?) "
        "ORDER BY agent_id, pinged_at, ping_seq"
    )
    for row in _rows(path, query, [str(path)]):
        if "signature" not in row:
            raise InputError(f"{path}: it has no reports; export the table history again")
        seconds = {state: row[f"{state}_seconds"] for state in Times._fields}
        times = None if row["up_seconds"] is None else times_of(seconds)
        yield Recorded(
            agent_id=row["agent_id"],
            ping_seq=row["ping_seq"],
            pinged_us=row["pinged_us"],
            outcome=row["outcome"],
            verdict=row["verdict"],
            uptime_percent=_judged_percent(row["verdict"], row["uptime_percent"]),
            since_us=_since_us(row["pinged_us"], times, row["window_seconds"]),
            times=times,
            response_ms=row["response_ms"] or 0.0,
            remarks=tuple((row["remarks"] or "").split()),
            report=_bytes(row["report"]),
            signature=row["signature"] or "",
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
        files = [str(pings), str(evidence)]
    else:
        query = (
            "SELECT *, NULL AS payload, NULL AS signature "
            "FROM read_parquet(?, hive_partitioning = false) ORDER BY agent_id, pinged_us, ping_seq"
        )
        files = [str(pings)]
    for row in _rows(path, query, files):
        yield _outcome_of_archive(row)


def _outcome_of_archive(row: dict[str, Any]) -> Recorded:
    times = None
    if row["up_ms"] is not None:
        times = Times(*(row[f"{state}_ms"] or 0 for state in Times._fields))
    since_us = None
    if row["until_ms"] is None and row["since_ms"] is not None and times is not None:
        since_us = row["pinged_us"] - 1000 * (row["since_ms"] + times.total)
    return Recorded(
        agent_id=row["agent_id"],
        ping_seq=row["ping_seq"],
        pinged_us=row["pinged_us"],
        outcome=row["outcome"],
        verdict=row["verdict"],
        uptime_percent=_judged_percent(row["verdict"], row["uptime_percent"]),
        since_us=since_us,
        times=times,
        response_ms=(row["response_us"] or 0) / 1000,
        remarks=tuple(json.loads(row.get("remarks") or "[]")),
        report=_bytes(row["payload"]),
        signature=row["signature"] or "",
    )


def _evidence_alone(path: Path) -> Iterator[Recorded]:
    """Reports without their rows. Whether one was refused is not known: the signed ones counted."""
    query = (
        "SELECT * FROM read_parquet(?, hive_partitioning = false) "
        "ORDER BY agent_id, pinged_us, ping_seq"
    )
    for row in _rows(path, query, [str(path)]):
        yield Recorded(
            agent_id=row["agent_id"],
            ping_seq=row["ping_seq"],
            pinged_us=row["pinged_us"],
            outcome="answered" if row["signature"] else "missed",
            report=_bytes(row["payload"]),
            signature=row["signature"] or "",
        )


def _rows(path: Path, query: str, files: list[str]) -> Iterator[dict[str, Any]]:
    import duckdb

    try:
        with duckdb.connect() as connection:
            result = connection.execute(query, files)
            names = [column[0] for column in result.description or []]
            while rows := result.fetchmany(ROWS_AT_ONCE):
                for row in rows:
                    yield dict(zip(names, row, strict=True))
    except duckdb.Error as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from None
    except KeyError as error:
        raise InputError(f"{path}: it has no column {error}") from None


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
