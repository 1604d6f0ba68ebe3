"""Enrolment, pings, revocation and errors at the level debug: no secret is written or shown.

Secrets are the seeds of the authority, of credentials, of hosts and of tokens, whole credentials,
tokens of the REST interface, and what stands in the server's configuration.
"""

import re
import subprocess
from pathlib import Path

import httpx
import pytest
from system import Program, Up, run, until

from bus.identity import enrolment_token

ROOT = Path(__file__).parents[2]
SEED = re.compile(r"\bS[OAU][A-Z2-7]{56}\b")
SIGNED = re.compile(r"\beyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{20,}")
REST_TOKEN = re.compile(r"gpuping_[A-Za-z0-9_-]{20,}")


def secrets_under(folder: Path) -> set[str]:
    """Every seed, and every token with its signature, in the files of a folder."""
    found: set[str] = set()
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in {
            ".seed",
            ".creds",
            ".conf",
            ".json",
            ".jsonl",
            ".jwt",
        }:
            text = path.read_text(errors="replace")
            found |= set(SEED.findall(text)) | set(SIGNED.findall(text))
    return found


def process_list() -> str:
    shown = ""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            shown += path.read_text(errors="replace").replace("\0", " ") + "\n"
        except OSError:
            continue  # it has ended
    return shown


@pytest.mark.slow
def test_a_host_s_life_shows_no_secret_at_debug(tmp_path: Path, programs: list[Program]) -> None:
    data = tmp_path / "data"
    tokens_file = tmp_path / "tokens.toml"
    made = run("token", "ada", "--role", "admin", "--file", str(tokens_file))
    (rest_token,) = REST_TOKEN.findall(made.stdout)
    quick = {"LOG_LEVEL": "debug", "PING_BASE_INTERVAL_MINUTES": "0.02"}
    up = Up(data, "--no-agent", GPUPING_TOKENS_FILE=str(tokens_file), **quick)
    programs.append(up)
    up.ready()
    made = run("enroll", "new", "--id", "gpu-1", "--data-dir", str(data), LOG_LEVEL="debug")
    word = made.stdout.split("--enroll ")[1].strip()
    token_text = word.rpartition("@")[0]
    secrets = {token_text, enrolment_token.parse(token_text).key.seed, rest_token}
    agent = Program(
        *(
            "agentd",
            "--enroll",
            word,
            "--scenario",
            "healthy",
            "--data-dir",
            str(tmp_path / "host"),
        ),
        AGENT_GPU_CHECK_INTERVAL_SECONDS="0.5",
        LOG_LEVEL="debug",
    )
    programs.append(agent)
    agent.printed("agent_registered")
    headers = {"Authorization": f"Bearer {rest_token}"}

    def pings() -> list[object]:
        history = httpx.get(
            f"{up.url}/ping-system/agents/gpu-1/history?hours=1", headers=headers, timeout=60
        )
        return list(history.json()["pings"])

    until(pings, "its first ping is in the history")
    shown = process_list().replace(word, "")  # docs/security.md: of no use once it is redeemed
    thief = run(
        *("agentd", "--enroll", word, "--scenario", "healthy"),
        *("--data-dir", str(tmp_path / "thief")),
        LOG_LEVEL="debug",
    )
    assert thief.returncode == 1
    wrong = httpx.get(
        f"{up.url}/ping-system/agents", headers={"Authorization": f"Bearer {word}"}, timeout=60
    )
    assert wrong.status_code == 401
    secrets |= secrets_under(data / "identity") | secrets_under(tmp_path / "host")
    assert len(secrets) > 20
    for arguments in (
        ("creds", "list"),
        ("creds", "hosts"),
        ("creds", "revoke", "gpu-1"),
        ("doctor", "--json"),
        ("audit",),
        ("enroll", "new", "--id", "not valid"),
    ):
        ended = run(*arguments, "--data-dir", str(data), LOG_LEVEL="debug")
        shown += ended.stdout + ended.stderr
    agent.printed("bus_")  # it was cut off
    agent.stop()
    shown += wrong.text + thief.stdout + thief.stderr + made.stderr
    shown += process_list().replace(word, "")
    up.stop()
    shown += up.output + agent.output
    for log in [*data.rglob("*.log"), *data.rglob("*.out")]:
        shown += log.read_text(errors="replace")
    found = sorted(secret[:12] for secret in secrets if secret in shown)
    assert found == []


@pytest.mark.slow  # seven processes start one beside the other
def test_services_as_processes_of_their_own_show_no_secret_at_debug(
    tmp_path: Path, programs: list[Program]
) -> None:
    """Neither in what they print, nor on the command line, nor in the environment."""
    tokens_file = tmp_path / "tokens.toml"
    made = run("token", "ada", "--role", "admin", "--file", str(tokens_file))
    up = Up(tmp_path / "data", "--no-agent")
    programs.append(up)
    up.ready()
    common = {
        "NATS_URL": up.nats_url,
        "NATS_CREDS": str(up.users),
        "GPUPING_TOKENS_FILE": str(tokens_file),
        "LOG_LEVEL": "debug",
    }
    commands = {
        "scheduler": ("scheduler",),
        "storage": ("storage",),
        "gateway": ("gateway", "--port", "0"),
        "enrolment": ("enrolment",),
        "alerts": ("alerts", "run"),
    }
    services = []
    for name, command in commands.items():
        data_dir = tmp_path / name
        if name == "enrolment":
            data_dir = up.data_dir  # with the agents' signing key
        own = {"GPUPING_DATA_DIR": str(data_dir), "STORAGE_NAME": "second"}
        services.append(Program(*command, **common, **own))
    programs += services
    for service in services:
        service.printed(r"\bready\b")
    shown = process_list()
    for service in services:
        shown += Path(f"/proc/{service.process.pid}/environ").read_text()
    for service in services:
        service.stop()
        shown += service.output
    secrets = secrets_under(up.data_dir / "identity") | set(REST_TOKEN.findall(made.stdout))
    up.stop()
    assert len(secrets) > 20
    assert sorted(secret[:12] for secret in secrets if secret in shown) == []


def test_neither_the_repository_nor_the_image_s_context_holds_a_secret() -> None:
    """The image is made of what .dockerignore lets through: names that it lists, and no others."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert listed.returncode == 0, "runs in a clone"
    names = [name for name in listed.stdout.split("\0") if name]
    for name in names:
        assert not name.endswith((".seed", ".creds", ".env")), name
    allowed = [
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    in_context = {name for name in names if name.split("/")[0] in allowed}
    for top in allowed:
        for path in [ROOT / top, *(ROOT / top).rglob("*")]:
            if path.is_file() and "__pycache__" not in path.parts:
                assert path.suffix not in {".seed", ".creds", ".env", ".key"}, path
    assert len(in_context) > 100
    for name in names:
        path = ROOT / name
        if path.is_file() and path.stat().st_size < 2_000_000:
            text = path.read_text(errors="replace")
            for seed in SEED.findall(text):
                assert "tests/" in name or "docs/" in name, f"{name}: {seed[:6]}"
