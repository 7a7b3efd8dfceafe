"""`speechemo completion`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from speechemo_cli.cli import terminal


class Shell(StrEnum):
    """The shells that can complete commands, options and their values."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def run(shell: Annotated[Shell, typer.Argument(help="Whose script.")]) -> None:
    """Print the script that lets a shell complete speechemo.

    For bash: speechemo completion bash > ~/.local/share/bash-completion/completions/speechemo.
    For zsh: into a file _speechemo on the fpath. For fish: into ~/.config/fish/completions/speechemo.fish.
    """
    from typer._completion_shared import get_completion_script

    terminal.emit(
        get_completion_script(
            prog_name="speechemo", complete_var="_SPEECHEMO_COMPLETE", shell=shell.value
        ).lstrip()
    )
