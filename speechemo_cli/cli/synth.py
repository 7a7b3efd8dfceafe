"""`speechemo synth`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechemo_cli.cli import options, render
from speechemo_cli.files import display_name


def run(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the clips go.")],
    actors: Annotated[int, typer.Option(min=1, max=24, help="Voices to invent; 60 clips each.")] = 8,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Another seed, other voices.")] = 0,
    quiet: options.Quiet = False,
) -> None:
    """Make a small corpus of synthetic voices in RAVDESS layout, to try the commands without data.

    The voices are buzzes through formant filters: good for a demonstration, no evidence about people.
    """
    from speechemo_cli.corpus import synthetic

    render.set_quiet(quiet)
    with render.progress("synthesising", "clips") as update:
        n = synthetic.write_corpus(folder, actors, seed, update)
    render.note(f"{n} synthetic clips of {actors} voices in {display_name(folder)}")
