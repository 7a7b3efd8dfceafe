"""`speechemo synth`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from speechemo_cli.choices import Layout
from speechemo_cli.cli import options, terminal
from speechemo_cli.files import display_name
from speechemo_cli.formatting import counted


def run(
    folder: Annotated[Path, Argument(metavar="DIR", help="Where the clips go.")],
    actors: Annotated[int, Option(min=1, max=24, help="Number of speakers; a layout may have fewer.")] = 8,
    layout: Annotated[
        Layout, Option(help="Names and folders: those of a corpus, or plain folders.")
    ] = Layout.ravdess,
    seed: Annotated[int, Option(min=0, max=2**31 - 1, help="Another seed, other voices.")] = 0,
    quiet: options.Quiet = False,  # noqa: ARG001 - it acts when it is read
) -> None:
    """Make a small corpus of synthetic voices, named like a public one, to try the commands without data.

    The voices are buzzes through formant filters: good for a demonstration, no evidence about people.
    """
    from speechemo_cli.corpus import synthetic

    with terminal.progress("synthesising", "clips") as update:
        n, speakers = synthetic.write_corpus(folder, actors, seed, update, layout.value)
    terminal.note(f"{n} synthetic clips of {counted(speakers, 'voice')} in {display_name(folder)}")
