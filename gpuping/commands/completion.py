"""`gpuping completion`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.completion.detect import ShellDetectionError

from bus import runner
from bus.errors import GpupingError, SettingsError
from gpuping.commands.options import CHECK, app, examples

Shell = Annotated[
    Literal["zsh", "bash", "fish", "powershell"] | None,
    Parameter(help="your shell; without it, the one that runs this command"),
]
ScriptFile = Annotated[
    Path | None,
    Parameter(name=["--output", "-o"], help="only write the script to this file"),
]


@app.command(
    group=CHECK,
    help_epilogue=examples("gpuping completion", "gpuping completion --shell bash -o gpuping.bash"),
)
def completion(*, shell: Shell = None, output: ScriptFile = None) -> int:
    """Install completion for your shell.

    The script goes where the shell looks for it, and the shell's start-up file loads it where that
    is needed. With --output only that file is written.
    """
    edit_startup_file = output is None
    try:
        path = app.install_completion(
            shell=shell,
            output=output,
            add_to_startup=edit_startup_file,
        )
    except ShellDetectionError:
        raise SettingsError(
            "--shell: expected zsh, bash, fish or powershell, because yours cannot be recognized"
        ) from None
    except OSError as error:
        raise GpupingError(f"{error.filename} cannot be written: {error.strerror}") from None
    print(f"completion script written to {path}")
    if edit_startup_file:
        print("restart your shell to use it")
    else:
        print("load it in your shell's start-up file, which is left as it is")
    return runner.DONE
