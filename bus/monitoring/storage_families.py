"""The figures of storage as Prometheus metrics. No I/O: answers in, families out."""

from prometheus_client.core import Metric

from bus.contract.questions import StorageStats
from bus.monitoring.families import REFUSED_REPLIES, counter, gauge

DAY_SECONDS = 86_400.0


def storage_families(stats: StorageStats) -> list[Metric]:
    """How far ingest has come, and how much room there is. What is not known is left out."""
    families = [
        gauge("ingest_lag_outcomes", "Outcomes on the bus that are not yet history", stats.lag),
        gauge(
            "ingest_waiting",
            "Whether ingest waits, for the disk, the file or the bus",
            stats.ingest_waiting is not None,
        ),
        counter(
            "poisoned_messages",
            "Messages of the history stream that could not be decoded and were set aside",
            stats.poisoned,
        ),
        counter("storage_refused_replies", REFUSED_REPLIES, stats.refused_replies),
        gauge("history_rows", "Outcomes in history", stats.rows),
        gauge(
            "history_missing_outcomes",
            "Outcomes that never reached history",
            stats.missing_seqs,
        ),
        gauge(
            "history_only_copies",
            "Days of history that neither the bus nor the archive holds",
            stats.days_in_file_only,
        ),
        gauge("stream_bytes", "Size of the history stream on the bus", stats.stream_bytes),
    ]
    optional = (
        ("stream_limit_bytes", "Largest size of the history stream", stats.stream_limit_bytes),
        ("storage_disk_free_bytes", "Room on the disk of the history file", stats.disk_free_bytes),
        ("storage_disk_size_bytes", "Size of the disk of the history file", stats.disk_bytes),
        ("storage_engine_bytes", "Memory in use by DuckDB", stats.engine_bytes),
    )
    for name, text, value in optional:
        if value is not None:
            families.append(gauge(name, text, value))
    if stats.stream_begins is not None:
        text = "When the oldest outcome on the bus was recorded"
        families.append(
            gauge("stream_begin_timestamp_seconds", text, stats.stream_begins.timestamp())
        )
    if stats.stream_days_left is not None:
        text = "Time until the bus drops its oldest outcomes, at the rate so far"
        families.append(gauge("stream_left_seconds", text, stats.stream_days_left * DAY_SECONDS))
    return families
