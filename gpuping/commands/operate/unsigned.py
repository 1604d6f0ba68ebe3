"""`gpuping creds unsigned`: until when reports of hosts without a key count."""

import time
from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter

from bus import runner
from bus.errors import SettingsError
from bus.identity.fleet_file import Fleet
from bus.identity.local import LocalIdentities
from gpuping.commands.command_settings import settings_of_fleet
from gpuping.commands.operate.creds import creds_app
from gpuping.commands.options import DataDir, examples
from gpuping.output import terminal


@creds_app.command(
    name="unsigned",
    help_epilogue=examples(
        "gpuping creds unsigned",
        "gpuping creds unsigned --until 2026-12-24",
        "gpuping creds unsigned --end",
    ),
)
def unsigned(
    *,
    until: Annotated[str | None, Parameter(help="a date, or a time with its zone")] = None,
    end: Annotated[bool, Parameter(help="from now on every report must be signed")] = False,
    data_dir: DataDir = None,
) -> int:
    """Show or change until when reports count that no key of the host has signed.

    Only fleets of before identities have such a time: 30 days from their upgrade. It holds for
    schedulers that start afterwards: restart `gpuping up`; with compose run `docker compose up -d
    --force-recreate setup scheduler`, under systemd install.sh and restart gpuping-scheduler.
    `gpuping creds hosts` lists the hosts that have no key.
    """
    if until is not None and end:
        raise SettingsError("--until and --end: expected one of them")
    settings = settings_of_fleet(data_dir)
    authority = LocalIdentities.open(settings.data_dir).authority
    if end:
        authority.accept_unsigned(until=int(time.time()))
    elif until is not None:
        if authority.fleet.requires_signed:
            raise SettingsError("--until: this fleet began with identities, and has no such hosts")
        authority.accept_unsigned(until=_seconds(until))
    terminal.console().print(_in_words(authority.fleet), soft_wrap=True)
    return runner.DONE


def _seconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"--until={text!r}: expected a date such as 2026-12-24") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp())


def _in_words(fleet: Fleet) -> str:
    if fleet.requires_signed:
        return "every report must be signed"
    if fleet.unsigned_until is None:
        return "reports of hosts without a key count, without an end"
    until = datetime.fromtimestamp(fleet.unsigned_until, UTC)
    if fleet.unsigned_until <= time.time():
        return f"every report must be signed, since {until:%Y-%m-%d %H:%M} UTC"
    return f"reports of hosts without a key count until {until:%Y-%m-%d %H:%M} UTC"
