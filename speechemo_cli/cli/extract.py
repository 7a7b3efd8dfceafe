"""`speechemo extract`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Option

from speechemo_cli.choices import Backend
from speechemo_cli.cli import inputs, options, terminal
from speechemo_cli.errors import ConfigError, DataError, NoInputError
from speechemo_cli.files import display_name
from speechemo_cli.formatting import counted


def run(
    features: Annotated[
        list[str] | None,
        Option(metavar="SET", show_default="all", help="Feature set to fill: mfcc, whisper, augment."),
    ] = None,
    template: Annotated[
        Path | None,
        Option(
            "--manifest-template",
            metavar="FILE.csv",
            help="Only write a list of the recordings in DATA, to fill in labels and speakers.",
        ),
    ] = None,
    export: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Write one set into a .csv, .npz or .parquet: whisper unless --features says.",
        ),
    ] = None,
    backend: options.BackendOption = Backend.loky,
    scheduler: options.Scheduler = None,
    format_: options.DocumentFormat = None,
    *,
    clips: options.Clips,
    settings: options.Settings,
) -> None:
    """Compute the features of every clip in DATA into the store.

    Clips whose content and feature config are already there are not computed again, so a run that was
    stopped goes on where it was.
    """
    from speechemo_cli.features import FEATURE_SETS, dataset
    from speechemo_cli.features.extraction import extract

    config = settings.config(clips)
    if template is not None:
        options.check_output("--manifest-template", template, ".csv")
        _write_template(config.data, template)
        return
    wanted = tuple(dict.fromkeys(features or (FEATURE_SETS if export is None else ["whisper"])))
    for name in wanted:
        if name not in FEATURE_SETS:
            raise ConfigError(f"--features is {name!r}, expected {' or '.join(FEATURE_SETS)}")
    if export is not None:
        if len(wanted) > 1:
            raise ConfigError(f"--export writes one feature set, --features are {', '.join(wanted)}")
        options.check_output("--export", export, dataset.check_table_path(export).suffix)
    corpus = inputs.find(config, outputs={"--export": [export]}, read=[settings.config_file])
    with options.workers_of(backend, scheduler), terminal.progress("extracting", "clips") as update:
        if export is None:
            result = extract(corpus, config, wanted, update, keep_keys=False)
        else:
            table = dataset.load_features(corpus, wanted[0], config, update)
            result = table.extraction
    if export is not None:
        table.save(export)
        terminal.note(f"features: {display_name(export)} ({counted(len(table.y), 'clip')})")
    inputs.report_extraction(result)
    counts = {"clips": result.clips, "extracted": result.extracted, "cached": result.cached}
    rows = {
        **counts,
        "byte-identical copies": result.duplicates,
        "failed": len(result.failed),
        "feature sets": ", ".join(wanted),
        "store": config.store,
        "seconds": f"{result.seconds:.1f}",
    }
    document = {
        "data": list(corpus.parts),
        **inputs.to_dict(corpus, result),
        **counts,
        "duplicates": result.duplicates,
        "warnings": [asdict(odd) for odd in result.quality_warnings],
        "damaged": result.damaged,
        "feature_sets": list(wanted),
        "store": config.store,
        "seconds": round(result.seconds, 3),
    }
    cells = [[name, str(value)] for name, value in rows.items()]
    options.show("extract", format_, lambda: terminal.table(["extract", ""], cells), document)
    inputs.exit_for(corpus, result)


def _write_template(data: tuple[str, ...], template: Path) -> None:
    """List every recording, with the label and the speaker where the layout tells."""
    from speechemo_cli.corpus.clips import iter_audio_files
    from speechemo_cli.corpus.layouts import find_clips
    from speechemo_cli.corpus.manifest import write_template

    listed: dict[str, tuple[str, str]] = {}
    for one in data:
        is_folder = Path(one).is_dir()
        if is_folder:
            listed |= dict.fromkeys(iter_audio_files(one), ("", ""))
        try:
            listed |= {clip.path: (clip.label, clip.speaker or "") for clip in find_clips(one, song=True)}
        except (DataError, NoInputError):
            if not is_folder:
                raise  # of a folder that tells no labels the recordings are listed all the same
    if not listed:
        raise NoInputError(f"no recording in {', '.join(map(display_name, data))}")
    write_template(template, ((path, *known) for path, known in listed.items()))
    name, lacking = display_name(template), sum(not label for label, _ in listed.values())
    terminal.note(
        f"{name}: {counted(len(listed), 'recording')}, {lacking} without a label. Fill in label and speaker"
        f" in a spreadsheet, then: speechemo extract {name}"
    )
