"""`speechemo extract`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speechemo_cli.cli import options, render
from speechemo_cli.files import display_name
from speechemo_cli.formatting import counted

if TYPE_CHECKING:
    from speechemo_cli.corpus.collection import Collection
    from speechemo_cli.corpus.layouts import Corpus
    from speechemo_cli.features.extraction import Extraction

_NAMES = {"ravdess": "RAVDESS names", "folders": "one folder a label", "manifest": "a CSV manifest"}


def run(
    data: options.Data = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--features",
            metavar="SET",
            show_default="all",
            help="Feature set to fill: mfcc, whisper, augment.",
        ),
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option(
            "--manifest-template",
            metavar="FILE.csv",
            show_default=False,
            help="Only write a list of the recordings in DATA, to fill in labels and speakers.",
        ),
    ] = None,
    store: options.Store = None,
    jobs: options.Jobs = None,
    song: options.Song = None,
    strict: options.Strict = None,
    format_: options.DocumentFormat = None,
    config_file: options.ConfigFile = None,
    sets: options.Sets = None,
    quiet: options.Quiet = False,
) -> None:
    """Compute the features of every clip in DATA into the store.

    Clips whose content and feature config are already there are not computed again, so a run that was
    stopped goes on where it was.
    """
    from dataclasses import asdict

    from speechemo_cli.corpus.collection import find_all
    from speechemo_cli.errors import ConfigError
    from speechemo_cli.features import FEATURE_SETS
    from speechemo_cli.features.extraction import extract

    render.set_quiet(quiet)
    config = options.build_config(
        config_file, sets, data=data, store=store, jobs=jobs, song=song, audio__strict=strict
    )
    if template is not None:
        options.check_output("--manifest-template", template, ".csv")
        _write_template(config.data, template)
        return
    wanted = tuple(dict.fromkeys(features or FEATURE_SETS))
    for name in wanted:
        if name not in FEATURE_SETS:
            raise ConfigError(f"--features is {name!r}, expected {' or '.join(FEATURE_SETS)}")
    corpus = find_all(config.data, song=config.song)
    say_corpora(corpus)
    with render.progress("extracting", "clips") as update:
        result = extract(corpus, config, wanted, update, keep_keys=False)
    render.say_extraction(result)
    if options.is_table(format_):
        rows = [
            ["clips", str(result.clips)],
            ["extracted", str(result.extracted)],
            ["cached", str(result.cached)],
            ["byte-identical copies", str(result.duplicates)],
            ["failed", str(len(result.failed))],
            ["feature sets", ", ".join(wanted)],
            ["store", config.store],
            ["seconds", f"{result.seconds:.1f}"],
        ]
        render.emit(render.table(["extract", ""], rows))
    else:
        render.emit_json(
            "extract",
            {
                "data": list(corpus.parts),
                "layouts": [part.layout for part in corpus.parts.values()],
                "clips": result.clips,
                "extracted": result.extracted,
                "cached": result.cached,
                "duplicates": result.duplicates,
                "skipped": corpus.skipped,
                "failed": [asdict(failure) for failure in result.failed],
                "warnings": [asdict(doubt) for doubt in result.doubts],
                "damaged": result.damaged,
                "feature_sets": list(wanted),
                "store": config.store,
                "seconds": round(result.seconds, 3),
            },
        )
    exit_for(corpus, result)


def _write_template(data: tuple[str, ...], template: Path) -> None:
    """List every recording, with the label and the speaker where the layout tells."""
    from speechemo_cli.corpus.layouts import Walk, find_clips
    from speechemo_cli.corpus.manifest import write_template
    from speechemo_cli.errors import DataError, NoInputError

    listed: dict[str, tuple[str, str]] = {}
    for one in data:
        is_folder = Path(one).is_dir()
        if is_folder:
            listed |= dict.fromkeys(Walk(one), ("", ""))
        try:
            listed |= {clip.path: (clip.label, clip.speaker or "") for clip in find_clips(one, song=True)}
        except (DataError, NoInputError):
            if not is_folder:
                raise  # of a folder that tells no labels the recordings are listed all the same
    if not listed:
        raise NoInputError(f"no recording in {', '.join(map(display_name, data))}")
    write_template(template, ((path, *known) for path, known in listed.items()))
    name, lacking = display_name(template), sum(not label for label, _ in listed.values())
    render.note(
        f"{name}: {counted(len(listed), 'recording')}, {lacking} without a label. Fill in label and speaker"
        f" in a spreadsheet, then: speechemo extract {name}"
    )


def say_corpora(found: Collection) -> None:
    """Say what was found, and what was left out and why."""
    for data, corpus in found.parts.items():
        _say_corpus(data, corpus)


def _say_corpus(data: str, corpus: Corpus) -> None:
    speakers = f", {counted(len(corpus.speakers), 'speaker')}" if corpus.speakers else ", speakers not known"
    render.note(
        f"{display_name(data)}: {_NAMES[corpus.layout]}, {counted(len(corpus), 'clip')}, "
        f"{counted(len(corpus.labels), 'label')}{speakers}"
    )
    for line in corpus.notes:
        render.note(f"  {line}")
    for reason, count in corpus.skipped.items():
        render.note(f"  left out: {count} {reason}")
    for folder in corpus.unreadable:
        render.warn(f"{display_name(folder)}: the folder cannot be read")


def exit_for(corpus: Collection, extraction: Extraction) -> None:
    """End as `render.exit_for` does where clips failed, or a folder of them could not be looked into."""
    unreadable = len(corpus.unreadable)
    render.exit_for(len(extraction.failed) + unreadable, len(corpus) + unreadable)
