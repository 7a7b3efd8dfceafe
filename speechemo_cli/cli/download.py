"""`speechemo download`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from speechemo_cli.cli import terminal
from speechemo_cli.errors import ConfigError
from speechemo_cli.files import display_name


def _complete() -> list[str]:
    from speechemo_cli.corpus.known import BY_NAME

    return list(BY_NAME)


def run(
    corpus: Annotated[
        str | None, Argument(metavar="[CORPUS]", help="Its name, e.g. ravdess.", autocompletion=_complete)
    ] = None,
    list_: Annotated[bool, Option("--list", help="List corpora, their licences and where they are.")] = False,
    song: Annotated[
        bool, Option("--song", help="The sung clips instead, into a folder of their own.")
    ] = False,
    to: Annotated[Path, Option(metavar="DIR", help="Where the folder of the corpus goes.")] = Path("data"),
    archive: Annotated[
        Path | None, Option(metavar="FILE.zip", help="Take this file instead of fetching it.")
    ] = None,
) -> None:
    """Fetch a public corpus into data/, checked and unpacked.

    Its licence and citation are shown first. A corpus appears whole or not at all.
    """
    from speechemo_cli.corpus import download
    from speechemo_cli.corpus.known import BY_NAME, RAVDESS

    if list_:
        terminal.emit("\n\n".join(one.describe() for one in BY_NAME.values()))
        return
    known = BY_NAME.get((corpus or "").lower())
    if known is None:
        what = f"the corpus {corpus!r} is not known" if corpus else "no CORPUS was given"
        raise ConfigError(what, "speechemo download --list shows what there is")
    terminal.note(known.describe())
    if known.name != RAVDESS:
        raise ConfigError(
            f"{corpus} is not fetched from here", f"Get it from {known.page} and unpack it into data/"
        )
    part = download.SONG if song else download.SPEECH
    if part.n_found(to / part.folder) != part.clips:
        with terminal.progress("downloading", "MB") as update:
            download.download(
                part,
                to,
                archive=archive,
                on_progress=lambda done, total: update(done // 10**6, total // 10**6),
            )
    terminal.emit(f"{display_name(to / part.folder)}: {part.clips} clips")
