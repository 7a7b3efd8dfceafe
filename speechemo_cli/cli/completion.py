"""`speechemo completion`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from speechemo_cli.cli import terminal


def run(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="Which shell.")],
) -> None:
    """Print the script that lets a shell complete speechemo.

    For bash: speechemo completion bash > ~/.local/share/bash-completion/completions/speechemo.
    For zsh: into a file _speechemo on the fpath. For fish: into ~/.config/fish/completions/speechemo.fish.
    """
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name="speechemo", complete_var="_SPEECHEMO_COMPLETE", shell=shell)
    terminal.emit(script.lstrip())
