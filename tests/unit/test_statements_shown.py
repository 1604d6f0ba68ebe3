"""How the terminal shows texts that hosts chose, and refusals of impossible questions."""

import io

import pytest
from rich.console import Console

from bus import runner
from bus.contract.messages import GpuReport, Seconds
from bus.errors import BadMessageError, RefusedError, SettingsError
from gpuping.commands.statement_requests import statement_request
from gpuping.output import tables, terminal
from gpuping.output.formats import untrusted
from storage.statements import policy_files
from tests.storage_states import START, report

HOSTILE = [
    "RTX [/x]",
    "[bold red]H100[/]",
    "[link=http://x]y[/link]",
    "a :smile: b",
    "\x1b[2Jgone",
    "one\rtwo",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_with_markup_or_control_characters_is_shown_as_plain_text(
    name: str, capsys: pytest.CaptureFixture[str]
):
    gpu = GpuReport(uuid="G", name=name, reasons=(name,), state="up", seconds=Seconds(up=1.0))
    terminal.console().print(tables.report_table(report("a", START, Seconds(up=1.0), gpus=(gpu,))))
    said = capsys.readouterr().out
    assert (
        said.count(
            name.replace("\x1b", "\N{REPLACEMENT CHARACTER}").replace(
                "\r", "\N{REPLACEMENT CHARACTER}"
            )
        )
        == 2
    )
    assert "\x1b" not in said


def test_untrusted_text_is_plain_on_any_console():
    text = io.StringIO()
    Console(file=text, force_terminal=True, width=80).print(untrusted("[red]x[/] \x1b]0;title\x07"))
    assert "[red]x[/]" in text.getvalue()
    assert "\x1b]0" not in text.getvalue()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("x"), 2),
        (RefusedError(400, "policy: unknown"), 2),
        (RefusedError(404, "no agent"), 1),
    ],
)
def test_a_question_that_a_service_refuses_as_bad_is_wrong_usage(error, code, capsys):
    assert runner.report(error) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_an_empty_policy_is_refused_and_a_byte_order_mark_is_not(tmp_path):
    assert statement_request("2026-11", None, "").policy == ""
    with pytest.raises(BadMessageError, match="no policy ''"):
        policy_files.read_rules("")
    file = tmp_path / "x.toml"
    file.write_text("\ufeffname = 'x'\n[[bands]]\nat_least = 1.0\nrate = 1.0\n", encoding="utf-8")
    text = statement_request("2026-11", None, str(file)).policy
    assert text
    assert policy_files.read_rules(text).name == "x"


@pytest.mark.parametrize(
    "text", ["x = " + "[" * 20_000, "x = " + "9" * 5_000, "x = " + "{b=" * 3_000, "x = 1\x00"]
)
def test_a_policy_file_that_breaks_the_parser_is_refused(text: str):
    with pytest.raises(BadMessageError, match="policy: "):
        policy_files.read_rules(text)
