"""`make bench`.

Runs every bench, prints one table with ratios and aims, and writes bench/latest.json.

A bench is a module of this folder with `async def measure(**arguments) -> dict[str, float]`, flat
keys with their units; its `QUICK` and `FULL` are the arguments of a run that must be short, and of
one that must be sure. QUICK=1 ends within a minute, and leaves out what takes minutes to mean
anything.

    make bench ARGS="storage_ingest storage_queries"
"""

import argparse
import asyncio
import importlib
import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import uvloop
from rich.console import Console
from rich.table import Table

from bus import logs, settings

QUICK_SECONDS = (
    57.0  # on a machine that is busy with other things a bench may be cut off; it is then said
)
LATEST = Path(__file__).with_name("latest.json")
BENCHES = (
    "scheduler_throughput",
    "prometheus_peer",
    "storage_ingest",
    "storage_queries",
    "agentd_footprint",
)
LONG_BENCHES = (
    "viewer_bytes",
    "viewer_speed",
    "signed_reports",
    "storage_stream",
    "timers",
    "registry_memory",
    "million",
)
DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {  # for benches that do not say it themselves
    "agentd_footprint": {"QUICK": {"seconds": 10.0}, "FULL": {"seconds": 60.0}},
}


class Aim(NamedTuple):
    """What a figure should reach. `most`: it should stay below."""

    value: float
    most: bool = False

    def met(self, figure: float) -> bool:
        return figure <= self.value if self.most else figure >= self.value

    def __str__(self) -> str:
        return f"{'<=' if self.most else '>='} {self.value:,g}"


AIMS = {
    "viewer_first_row_seconds": Aim(2.0, most=True),
    "viewer_scroll_to_static_ratio": Aim(0.85),
    "viewer_search_p95_ms": Aim(150.0, most=True),
    "viewer_filter_p95_ms": Aim(150.0, most=True),
    "viewer_map_drawn_ms": Aim(100.0, most=True),
    "viewer_heap_growth_percent": Aim(10.0, most=True),
    "viewer_map_kilobytes_per_second": Aim(30.0, most=True),
    "viewer_idle_kilobytes_per_second": Aim(10.0, most=True),
    "pings_per_second": Aim(10_000),
    "pings_to_raw_ratio": Aim(0.3),
    "pings_to_prometheus_ratio": Aim(1.0),
    "signed_to_unsigned_ratio": Aim(0.6),
    "signed_extra_cpu_percent_at_1111_per_second": Aim(8, most=True),
    "agentd_pss_megabytes": Aim(45, most=True),
    "agentd_cpu_percent": Aim(0.2, most=True),
    "ingest_rows_per_second": Aim(100_000),
    "ingest_to_raw_ratio": Aim(0.6),  # holds on a shared machine, where rows/s do not
    "history_bytes_per_row": Aim(16, most=True),
    "agent_history_24h_p99_ms": Aim(100, most=True),
    "dashboard_24h_p99_ms": Aim(100, most=True),
    "fleet_month_p99_ms": Aim(100, most=True),
    "storage_peak_megabytes": Aim(1024, most=True),  # the default of STORAGE_MEMORY_LIMIT_MB
}
RATIOS = {  # name: figure over figure
    "pings_to_raw_ratio": ("pings_per_second", "raw_requests_per_second"),
    "pings_to_prometheus_ratio": ("pings_per_second", "prometheus_scrapes_per_second"),
}


def main() -> int:
    """Runs the benches named as arguments, or all. Exit code 1 where one failed.

    A missed aim is no failure.
    """
    named = asked()
    quick = os.environ.get("QUICK", "") not in {"", "0"}
    console = Console(width=110) if not sys.stdout.isatty() else Console()
    figures: dict[str, float] = {}
    failed = []
    logs.setup(settings.load({}, LOG_LEVEL="error"))
    ends = time.monotonic() + QUICK_SECONDS if quick else None
    for name in named or (BENCHES if quick else BENCHES + LONG_BENCHES):
        began = time.monotonic()
        try:
            figures |= run(name, quick=quick, seconds=ends - began if ends else None)
        except Exception as error:  # noqa: BLE001  # one bench that breaks must not cost the others' figures
            failed.append(name)
            console.print(f"{name} failed: {type(error).__name__}: {error}", style="red")
        console.print(f"{name}: {time.monotonic() - began:.1f} s", style="bright_black")
    figures |= ratios(figures)
    LATEST.write_text(json.dumps(machine(quick=quick) | figures, indent=2) + "\n")
    console.print(table(figures))
    return 1 if failed else 0


def asked() -> list[str]:
    """The benches named on the command line. A name that is none ends it: one line, exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = BENCHES + LONG_BENCHES
    parser.add_argument(
        "names", nargs="*", metavar="BENCH", help=f"one of {', '.join(known)}; none: all of them"
    )
    named: list[str] = parser.parse_args().names
    if unknown := [name for name in named if name not in known]:
        parser.exit(2, f"no bench {unknown[0]!r}; there are {', '.join(known)}\n")
    return named


def run(name: str, *, quick: bool, seconds: float | None) -> dict[str, float]:
    """One bench, with the arguments of this kind of run.

    Raises TimeoutError when `seconds` are over.
    """
    module = importlib.import_module(f"bench.{name}")

    async def measured() -> dict[str, float]:
        async with asyncio.timeout(seconds):
            figures: dict[str, float] = await module.measure(
                **arguments(module, name, "QUICK" if quick else "FULL")
            )
            return figures

    return uvloop.run(measured())


def arguments(module: ModuleType, name: str, kind: str) -> dict[str, Any]:
    return dict(getattr(module, kind, None) or DEFAULTS.get(name, {}).get(kind, {}))


def ratios(figures: dict[str, float]) -> dict[str, float]:
    """Those whose both sides were measured in this run."""
    return {
        name: figures[ours] / figures[theirs]
        for name, (ours, theirs) in RATIOS.items()
        if ours in figures and figures.get(theirs)
    }


def machine(*, quick: bool) -> dict[str, Any]:
    """Where and when: a figure means nothing without it."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


def table(figures: dict[str, float]) -> Table:
    made = Table(title="gpuping bench", header_style="bold")
    for heading, justify in (
        ("FIGURE", "left"),
        ("VALUE", "right"),
        ("AIM", "right"),
        ("", "left"),
    ):
        made.add_column(heading, justify=justify)  # type: ignore[arg-type]  # rich's own literals
    for name, value in figures.items():
        aim = AIMS.get(name)
        verdict = "" if aim is None else "[green]met[/]" if aim.met(value) else "[yellow]missed[/]"
        made.add_row(
            name,
            f"{value:,.3f}" if value < 100 else f"{value:,.0f}",
            str(aim) if aim else "",
            verdict,
        )
    return made


if __name__ == "__main__":
    sys.exit(main())
