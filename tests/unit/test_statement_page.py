"""The printed statement: GPUs by index, incidents with their length, and reasons in plain words."""

import re
from datetime import timedelta
from pathlib import Path

from bus.contract.messages import Incident, SummedSeconds
from bus.contract.reasons import REASON_WORDS
from bus.contract.statements import Account, GpuAccount, Statement
from storage.statements import page
from tests.storage_states import GPU, START

LABELS = Path(__file__).parents[2] / "gateway/static/js/labels.js"


def account(**about) -> dict:
    seconds = SummedSeconds(up=800.0, down=100.5)
    plain = {
        "seconds": seconds,
        "unreported_seconds": 0.0,
        "coverage_percent": 100.0,
        "uptime_percent": 88.8888,
    }
    return plain | about


def statement(*incidents: Incident) -> Statement:
    gpu = GpuAccount(uuid=GPU, name="RTX 4090", index=3, enrolled_seconds=900.5, **account())
    return Statement(
        agent_id="a",
        month="2026-11",
        generated_at=START,
        since=START,
        until=START + timedelta(days=1),
        final=False,
        enrolled_seconds=900.5,
        host=Account(**account()),
        gpus=(gpu,),
        incidents=incidents,
        splits=(),
        pings=1,
        answered=1,
        missed=0,
        excused=0,
        missing_seqs=0,
    )


def test_an_incident_is_of_a_gpu_by_its_index_with_its_length_in_plain_words():
    until = START + timedelta(minutes=1, seconds=40)
    incidents = (
        Incident(gpu=GPU, state="down", reason="lost", since=START, until=until),
        Incident(gpu=GPU, state="down", reason="xid:79", since=START),
        Incident(state="unknown", reason="not-running", since=START, until=until),
    )
    rows = re.findall(r"<tr><td>(.*?)</tr>", page.render(statement(*incidents)))
    cells = [[re.sub("<.*?>", "", cell) for cell in row.split("</td><td>")] for row in rows]
    assert [row[2:] for row in cells] == [
        ["0:01:40", "GPU 3", "down: lost: no longer on the bus"],
        ["", "GPU 3", "down: XID 79"],
        ["0:01:40", "host", "unknown: agentd did not run"],
    ]


def test_every_state_has_its_time_and_the_host_says_why_it_is_down():
    text = page.render(statement())
    assert "GPU 3  RTX 4090" in text
    assert "100.500 s" in text
    assert "degraded <b>" not in text  # states without time are left out
    assert "worst state of its GPUs" in text


def test_the_page_of_the_dashboard_uses_the_same_words():
    labels = LABELS.read_text(encoding="utf-8")
    for reason, words in REASON_WORDS.items():
        assert re.search(rf'^  "?{reason}"?: "{re.escape(words)}",$', labels, re.MULTILINE), reason
