"""Schemathesis with all its checks, on a whole system: what is described is what is answered.

It makes requests from the gateway's own description, valid ones and invalid ones, and compares each
answer with it: status, content type, headers, body, missing and wrong tokens, unknown methods.
"""

import asyncio
import re
import sys
from pathlib import Path

import httpx
import pytest

from bus import settings
from bus.identity import tokens
from gpuping.up import system

SECONDS = 400  # with four examples it takes half a minute on an idle machine
# All checks are on by default. 503 and 504 are answers about agents that are not there, 507 is one
# about a full disk. What OpenAPI cannot describe is refused although it is valid by the schema:
# months that have not begun, periods that end before they begin, times before 1970, and rules about
# several fields together. The event stream never ends: test_gateway_live.py reads it.
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503, 504, 507]

[[operations]]
include-path-regex = "/(replay|report|explanation|series|timeline|maintenance)$|/export/"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path-regex = "/(expected-gpus|labels|silences|beats|status-pages)$"
checks.positive_data_acceptance.enabled = false

# The text `null` in a query stands for an absent parameter.
[[operations]]
include-path-regex = "/(series|timeline)$"
checks.positive_data_acceptance.enabled = false
checks.negative_data_rejection.enabled = false
"""


@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize(
    ("phases", "examples"),
    [("coverage", 1), pytest.param("coverage,fuzzing", 4, marks=pytest.mark.slow)],
)
async def test_every_answer_is_as_described(
    nats_server,
    tmp_path: Path,
    phases: str,
    examples: int,
):
    """`examples` are made for each operation."""
    secret, entry = tokens.create("ada", "admin")
    (tmp_path / "tokens.toml").write_text(tokens.as_toml(entry))
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    chosen = settings.load(
        {},
        NATS_URL=nats_server.url,
        GPUPING_DATA_DIR=str(tmp_path / "data"),
        GATEWAY_PORT=0,
        GATEWAY_REQUESTS_PER_SECOND=100_000.0,
        PING_RESPONSE_TIMEOUT_SECONDS=0.5,
        GPUPING_TOKENS_FILE=str(tmp_path / "tokens.toml"),
    )
    options = system.Options(local_agent=False, test_agents=1)
    async with system.running(chosen, options) as running:
        url = httpx.URL(running.gateway_url)
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/schema/openapi.json"),
            *("--max-examples", str(examples), "--seed", "1"),
            *("--phases", phases, "--exclude-path", "/ping-system/events"),
            *("--header", f"Authorization: Bearer {secret}"),
            *("--request-timeout", "20", "--no-color", "--generation-database", "none"),
        ]
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(SECONDS):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
    said = output.decode()
    assert process.returncode == 0, said
    passed = re.search(r"generated, (\d+) passed", said)
    assert passed is not None, said
    assert int(passed[1]) > 500
