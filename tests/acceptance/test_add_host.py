"""REST and the page let a host in: by operators, in the audit log, and never in another's place."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import httpx
import pytest
from system import Program, Up, until

from bus.identity.tokens import TokenRole, as_toml, create
from tests.browser import Browser, chromium

PATH = "/ping-system/enrolments"


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A tokens file, and the secret of each role."""
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    secrets = {}
    entries = []
    for role in get_args(TokenRole):
        secrets[role], token = create(role, role)
        entries.append(as_toml(token))
    file.write_text("".join(entries))
    return file, secrets


@pytest.fixture(scope="module")
def up(
    tokens: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Up]:
    data = tmp_path_factory.mktemp("add-host")
    system = Up(data, "--no-agent", GPUPING_TOKENS_FILE=str(tokens[0]))
    try:
        system.printed("ready after")
        system.url = system.printed(r"dashboard +(http://\S+)/")[1]
        system.nats_url = system.printed(r"bus +(nats://\S+)")[1]
        yield system
    finally:
        system.stop()


@pytest.fixture
def client(up: Up, tokens: tuple[Path, dict[str, str]]) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {tokens[1]['operator']}"}
    with httpx.Client(base_url=up.url, headers=headers, timeout=20) as client:
        yield client


def test_an_operator_lets_one_host_in_by_the_page_and_a_viewer_sees_no_button(
    up: Up,
    client: httpx.Client,
    tokens: tuple[Path, dict[str, str]],
    programs: list[Program],
    tmp_path: Path,
) -> None:
    with chromium(tmp_path / "profile") as browser:
        sign_in(browser, up, tokens[1]["viewer"])
        browser.see("h1", "Nobody to ping yet")
        browser.see(".empty code", "gpuping enroll new")
        assert not browser.script("return document.querySelectorAll('.add-host').length")
        browser.script("document.querySelector('.linklike').click()")
        sign_in(browser, up, tokens[1]["operator"])
        browser.see(".add-host")
        browser.see(".new-host input").send_keys("gpu-5")
        browser.see(".new-host button").click()
        command = browser.see(".offer code", "gpuping agentd --enroll").text
        browser.see(".offer [role=status]", "Lets one host in, once. Expires in")
        agent = Program(
            *command.split()[1:], "--scenario", "healthy", "--data-dir", str(tmp_path / "host")
        )
        programs.append(agent)
        browser.see("[data-agent=gpu-5]")

    def listed() -> bool:
        found = client.get("/ping-system/agents/gpu-5").json()
        return bool(found.get("total_pings"))

    until(listed, "it is pinged")
    refused = client.post(PATH, json={"agent_id": "gpu-5"})
    assert refused.status_code == 409
    assert "gpuping enroll new --id gpu-5" in refused.json()["detail"]


def sign_in(browser: Browser, up: Up, secret: str) -> None:
    browser.open(up.url)
    browser.see("input[type=password]").send_keys(secret)
    browser.see(".login button").click()
    browser.see(".live")


def test_who_may_make_the_command(up: Up, tokens: tuple[Path, dict[str, str]]) -> None:
    with httpx.Client(base_url=up.url, timeout=20) as client:
        assert client.post(PATH, json={}).status_code == 401
        for role, secret in tokens[1].items():
            headers = {"Authorization": f"Bearer {secret}"}
            expected = 403 if role == "viewer" else 201
            made = client.post(PATH, json={"valid_seconds": 60}, headers=headers)
            assert made.status_code == expected
            assert made.headers["cache-control"] == "no-store"
            caller = client.get("/ping-system/caller", headers=headers).json()
            bus_url = None if role == "viewer" else up.nats_url
            assert caller == {"name": role, "role": role, "bus_url": bus_url}


def test_it_is_in_the_audit_log_without_its_secret(
    client: httpx.Client, tokens: tuple[Path, dict[str, str]], up: Up
) -> None:
    offer = client.post(PATH, json={"agent_id": "gpu-6", "valid_seconds": 120}).json()
    assert offer["command"].startswith("gpuping agentd --enroll SU")
    assert offer["only_here"] is True
    admin = {"Authorization": f"Bearer {tokens[1]['admin']}"}
    entries = client.get("/ping-system/audit", headers=admin).json()["entries"]
    made = next(entry for entry in entries if entry["action"] == "offer-enrolment")
    assert made["actor"] == "token operator"
    assert made["agent_id"] == "gpu-6"
    secret = offer["command"].split()[-1].split(".")[0]
    assert secret not in json.dumps(entries)
    for log in up.data_dir.rglob("*.log"):
        assert secret not in log.read_text()
    assert secret not in up.output


@pytest.mark.parametrize(
    "body", [{"agent_id": "*"}, {"agent_id": "a.b"}, {"valid_seconds": 59}, {"valid_seconds": 1e9}]
)
def test_a_bad_request_is_refused(client: httpx.Client, body: dict[str, object]) -> None:
    assert client.post(PATH, json=body).status_code == 400
