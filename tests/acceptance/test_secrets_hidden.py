"""A password in NATS_URL is shown nowhere: not in banners, doctor, errors, nor logs."""

import signal
from pathlib import Path

import pytest

from bus.transport import embedded_server
from tests.acceptance.system import Program, run
from tests.ports import free_port

PASSWORD = "s3cret-of-ada"


class ServerWithPassword(embedded_server.EmbeddedServer):
    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir, free_port())
        self._password = PASSWORD

    @property
    def url_with_password(self) -> str:
        return f"nats://local:{PASSWORD}@127.0.0.1:{self.port}"


@pytest.mark.slow
async def test_a_running_system(tmp_path: Path):
    server = ServerWithPassword(tmp_path / "bus")
    await server.start()
    url = server.url_with_password
    data = tmp_path / "data"
    up = Program("up", "--port", "0", "--data-dir", str(data), NATS_URL=url, LOG_LEVEL="debug")
    try:
        up.printed("first answered ping")
        said = ""
        for arguments in (
            ["doctor"],
            ["doctor", "--json"],
            ["agents"],
            ["history", "nobody"],
            ["ping", "nobody"],
        ):
            for more in ({"NATS_URL": url}, {}):
                done = run(*arguments, "--data-dir", str(data), LOG_LEVEL="debug", **more)
                said += done.stdout + done.stderr
        assert "nats://***@127.0.0.1" in said
        assert PASSWORD not in said
        agent = Program("agentd", "--scenario", "healthy", NATS_URL=url, AGENT_ID="b",
                        AGENT_STATE_DIR=str(tmp_path / "b"), LOG_LEVEL="debug")  # fmt: skip
        agent.printed("on the bus")
        agent.stop()
        assert PASSWORD not in agent.output
        server.process.send_signal(signal.SIGSTOP)
        done = run("doctor", "--json", NATS_URL=url)
        assert PASSWORD not in done.stdout + done.stderr
        server.process.send_signal(signal.SIGCONT)
    finally:
        up.stop()
        await server.stop()
    assert "nats://***@127.0.0.1" in up.output
    assert PASSWORD not in up.output


@pytest.mark.parametrize("verb", ["doctor", "agents", "up"])
def test_no_system(verb: str, tmp_path: Path):
    url = f"nats://ada:{PASSWORD}@bad host"
    done = run(verb, "--data-dir", str(tmp_path), NATS_URL=url)
    assert done.returncode == 2
    assert PASSWORD not in done.stdout + done.stderr
    if verb != "up":
        done = run(verb, "--data-dir", str(tmp_path), NATS_URL=f"nats://ada:{PASSWORD}@127.0.0.1:1")
        assert done.returncode == 1
        assert PASSWORD not in done.stdout + done.stderr
