"""`gpuping enroll new` lets a GPU host in; `gpuping enrolment` runs the service that answers it."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from cyclopts import App, Parameter

from bus import runner
from bus.addresses import is_loopback
from bus.contract import subjects
from bus.contract.enrolment import NewTokenReply, NewTokenRequest, enrol_command
from bus.errors import SettingsError
from bus.identity.local import LocalIdentities
from bus.runner import Lifecycle
from bus.transport.micro_services import ask
from gpuping import extras
from gpuping.client.bus_connection import connect_to_running
from gpuping.client.bus_file import with_running_bus
from gpuping.commands.command_settings import load_settings, settings_of_fleet
from gpuping.commands.operate.creds import revoke_keys
from gpuping.commands.options import CHECK, RUN, DataDir, OneAgentOption, app, examples

SECONDS = {"m": 60, "h": 3600, "d": 86_400}
ONLY_HERE = (
    "this bus listens on loopback: other machines reach it once it has a certificate "
    "(`gpuping creds init --tls-names NAME`) and `NATS_HOST=0.0.0.0 gpuping up` runs"
)
_DURATION = re.compile(r"(\d{1,6})([mhd])")

enroll_app = App(
    name="enroll",
    group=CHECK,
    help_format="markdown",
    help="Let GPU hosts in.",
    help_epilogue=examples("gpuping enroll new", "gpuping enroll new --id agent-001 --expires 15m"),
)
app.command(enroll_app)


@enroll_app.command(
    help_epilogue=examples("gpuping enroll new", "gpuping enroll new --id agent-001 --expires 2h")
)
def new(
    *,
    id: OneAgentOption = None,  # noqa: A002  # the option's name
    expires: Annotated[str, Parameter(help="such as 15m, 2h or 3d; 30 days at most")] = "1h",
    address: Annotated[
        str | None, Parameter(help="HOST:PORT at which the host reaches the bus")
    ] = None,
    revoke: Annotated[
        bool, Parameter(negative="", help="void the agent's present keys now (needs --id)")
    ] = False,
    data_dir: DataDir = None,
) -> int:
    """Print the one command that a new GPU host runs to join the fleet.

    The command holds a secret that lets one host in, once, until it expires. The host makes its own
    keys; no private key travels. With --id the host becomes that agent, and takes its place where
    it exists: the keys that it had before are void then.

    Where the enrolment service runs apart from the authority's keys, as in compose and under
    systemd, it cannot void them. There --revoke does: run it where those keys are.
    """
    if revoke and id is None:
        raise SettingsError("--revoke: expected --id with it, the agent whose keys are void then")
    settings = settings_of_fleet(data_dir)
    request = NewTokenRequest(agent_id=id, valid_seconds=_seconds(expires))

    async def main(_: Lifecycle) -> None:
        if revoke and id is not None:
            found = with_running_bus(settings)
            authority = LocalIdentities.open(found.data_dir).authority
            keys = await revoke_keys(found, authority, id)
            runner.complain(f"revoked {len(keys)} credentials of {id}")
        async with connect_to_running(settings) as client:
            reply = await ask(
                client,
                subjects.NEW_ENROLMENT,
                request,
                NewTokenReply,
                who="the enrolment service",
            )
        print(enrol_command(reply.token, address or reply.address))
        if reply.replaces and not revoke:
            runner.complain(_what_becomes_of(id or "", voids_earlier=reply.voids_earlier))
        if address is None and is_loopback(urlsplit(f"//{reply.address}").hostname or ""):
            runner.complain(ONLY_HERE)
        runner.complain(f"lets one host in, until {reply.expires_at:%Y-%m-%d %H:%M:%S} UTC")

    return runner.run_command(main)


def _what_becomes_of(agent_id: str, *, voids_earlier: bool) -> str:
    """What the operator must know of a host whose place another one takes."""
    if voids_earlier:
        return (
            f"{agent_id} exists: the host that runs this takes its place, and its present host is "
            "shut out then; if that is not meant, let the command expire unused"
        )
    return (
        f"{agent_id} exists: the host that runs this takes its place, but the credentials of its "
        f"present host stay good, and two would be {agent_id}. Where the fleet's keys are, "
        f"`gpuping enroll new --id {agent_id} --revoke` voids them"
    )


@app.command(group=RUN, help_epilogue=examples("NATS_CREDS=enrolment.creds gpuping enrolment"))
def enrolment(*, data_dir: DataDir = None) -> int:
    """Run the enrolment service: it redeems enrolment tokens and renews agents' credentials.

    `gpuping up` runs it already. Its data dir needs `identity/fleet.json` and, of the signing keys,
    those of agent and bootstrap.
    """
    loaded = load_settings(GPUPING_DATA_DIR=data_dir)
    with extras.needed("server"):
        from bus.monitoring import service_metrics
        from gpuping.enrolment import service
    authority = LocalIdentities.open(loaded.data_dir).authority
    settings = with_running_bus(loaded, "enrolment")

    async def main(lifecycle: Lifecycle) -> None:
        await runner.serve(
            "enrolment",
            service.running(settings, authority),
            lifecycle,
            lambda running: service_metrics.serving(
                settings, "ENROLMENT_METRICS_PORT", running.metric_families
            ),
        )

    return runner.run(main)


def _seconds(text: str) -> int:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise SettingsError(f"--expires={text!r}: expected minutes, hours or days: 15m, 2h, 3d")
    seconds = int(found[1]) * SECONDS[found[2]]
    if not 60 <= seconds <= 30 * 86_400:
        raise SettingsError(f"--expires={text!r}: expected from 1m to 30d")
    return seconds
