"""`speechemo train`."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from speechemo_cli.choices import Split, Version
from speechemo_cli.cli import inputs, options, score_tables, terminal
from speechemo_cli.cli.answers import csv_line
from speechemo_cli.corpus.clips import speaker_names
from speechemo_cli.errors import AccessError, ModelFileError
from speechemo_cli.files import atomic_path, display_name, require_writable
from speechemo_cli.formatting import interval, percent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from speechemo_cli.config import Config
    from speechemo_cli.corpus.clips import Clip
    from speechemo_cli.evaluation.holdout import HoldoutResult

# Room for the model file, the LiteRT file and the learning curve, and some more.
_ROOM_BYTES = {"v1": 2**22, "v2": 2**22, "v3": 2**25}
# Of fewer answers no share is told.
_ENOUGH = 10


def run(
    version: Annotated[Version, Option(help="Which network.")] = Version.v2,
    split: Annotated[
        Split | None,
        Option(
            show_default="both", help="What to hold out: whole speakers and clips, clips alone, or nothing."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            metavar="FILE",
            show_default="models/VERSION.keras",
            help="Where the model goes.",
        ),
    ] = None,
    history: Annotated[
        Path | None, Option(metavar="FILE.csv", help="Write loss and accuracy by epoch into this file too.")
    ] = None,
    resume: Annotated[
        bool, Option("--resume", help="Go on where a killed training of the same kind stopped.")
    ] = False,
    format_: options.DocumentFormat = None,
    *,
    training: options.Training,
    clips: options.Clips,
    settings: options.Settings,
) -> None:
    """Train a network on the clips in DATA and measure it on held-out clips and on unseen speakers.

    Writes models/VERSION.keras, and beside it the same network for LiteRT (.tflite) and the learning
    curve (.png). Features that the store lacks are extracted first.
    """
    started = time.perf_counter()
    from speechemo_cli.evaluation import holdout, protocols
    from speechemo_cli.models import model_file

    config = settings.config(clips, training, split=split)
    path = output or model_file.default_path(config.models, version.value)
    options.check_output("--output", path, model_file.SUFFIX, any_case=False, n_bytes=_ROOM_BYTES[version])
    options.check_output("--output", path.with_suffix(".png"), ".png")
    options.check_output("--history", history, ".csv")
    require_writable(Path(config.runs))
    preset = protocols.preset_of(version.value, config)
    model_file.require_moderate(preset.feature_set, config)
    written = [path, model_file.litert_path(path), path.with_suffix(".png")]
    corpus, data = inputs.load_data(
        config,
        preset.feature_set,
        preset.others,
        outputs={"--output": written, "--history": [history]},
        read=[settings.config_file],
    )
    if not split:
        config = _split_that_fits(config, corpus.clips)
    if holdout.unfinished_training(version.value, data, config).exists():
        terminal.note(
            "going on with the unfinished training"
            if resume
            else "an unfinished training of this kind is given up (--resume goes on with it)"
        )
    with terminal.progress("training", "epochs") as update:
        result = holdout.train_with_holdout(
            version.value,
            data,
            config,
            lambda stage, done, total, values: update(done, total, stage, _epoch_text(values)),
            resume=resume,
        )
    for caution in result.cautions:
        terminal.warn(caution)
    temperatures = [result.calibration.temperature] if result.calibration else []
    score_tables.report_calibration(preset.calibrate and not temperatures, temperatures)
    files, error = _write(result, path, history)
    document = {
        "version": version.value,
        "model": str(path) if path in files else None,
        "files": [str(file) for file in files],
        "epochs": preset.epochs,
        "seed": config.seed,
        "split": config.train.split,
        "labels": list(data.labels),
        **inputs.to_dict(corpus, data.extraction),
        **result.to_dict(),
        "history": result.metadata.history,
        "seconds": round(time.perf_counter() - started, 3),
    }
    title = f"{version}, {preset.epochs} epochs, seed {config.seed}"
    options.show("train", format_, lambda: _tables(result, title, files), document)
    if error:
        if result.unfinished.exists():
            terminal.note("the training is kept: with --resume it is saved without being done again")
        raise error
    inputs.exit_for(corpus, data.extraction)


def _split_that_fits(config: Config, clips: Iterable[Clip]) -> Config:
    """Fall back from the default split where no corpus tells two speakers, and say so."""
    speakers: dict[str, set[str | None]] = {}
    for clip in clips:
        speakers.setdefault(clip.corpus, set()).add(clip.speaker_id)
    has_speakers = any(None not in ids and len(ids) > 1 for ids in speakers.values())
    if config.train.split is not Split.both or has_speakers:
        return config
    terminal.warn(
        "no corpus tells two speakers, so unseen speakers cannot be measured: using --split random. "
        "Name the speakers by a folder level, --speaker-from or the manifest's speaker column"
    )
    return replace(config, train=replace(config.train, split=Split.random))


def _write(result: HoldoutResult, path: Path, history: Path | None) -> tuple[list[Path], Exception | None]:
    """Write the files of a training: those that are complete, and what went wrong with the next."""
    from speechemo_cli.evaluation import plots
    from speechemo_cli.models import model_file, training

    metadata, litert = replace(result.metadata, results=result.to_dict()), model_file.litert_path(path)
    curve, files = path.with_suffix(".png"), []
    try:
        try:
            sha256 = model_file.write_litert(training.with_distance(result.model), litert)
            metadata = replace(metadata, litert=sha256)
            files.append(litert)
        except (AccessError, ModelFileError) as error:
            terminal.warn(f"{error.message}. predict will run it with Keras, which takes longer to start")
        model_file.save(result.model, metadata, path)
        files.insert(0, path)
        result.unfinished.drop()
        plots.learning_curve(
            metadata.history, f"{metadata.version}, {len(result.holdout.train)} clips", curve
        )
        files.append(curve)
        if history:  # one line an epoch: accuracy (0 to 1) and loss (nats) of each watched set
            rows = [["epoch", *metadata.history], *zip(count(1), *metadata.history.values(), strict=False)]
            with atomic_path(history) as temp:
                temp.write_text("".join(map(csv_line, rows)), encoding="utf-8", newline="")
            files.append(history)
    except Exception as error:  # whatever it is, the results are told first
        return files, error
    return files, None


def _epoch_text(values: Any) -> str:
    names = {"train": "train", "seen": "seen speakers", "new": "unseen speakers"}
    return "  ".join(
        f"{words} {100 * values[f'{name}_accuracy']:.0f} %"
        for name, words in names.items()
        if f"{name}_accuracy" in values
    )


def _tables(result: HoldoutResult, title: str, files: list[Path]) -> str:
    tested = {"seen speakers": result.seen, "unseen speakers": result.new}
    parts = {
        "training clips": result.train,
        "the same, each speaker left out in turn": result.calibration and result.calibration.result.scores,
        **{f"held out, {name}": scores for name, scores in tested.items()},
        **{f"  {corpus}": scores for corpus, scores in result.new_by_corpus.items()},
        **{
            f"{name}, by a training without it": crossed.scores
            for name, crossed in result.other_corpora.items()
        },
    }
    rows = [[name, *score_tables.score_cells(scores)] for name, scores in parts.items() if scores]
    text = terminal.table(["", *score_tables.SCORES], rows, title=title)
    held_out = {name: scores for name, scores in tested.items() if scores}
    if held_out:
        text += "\n" + score_tables.per_class_table(held_out)
    lines = _in_words(result)
    if files:
        lines.append(f"Wrote {', '.join(map(display_name, files))}.")
    if files and files[0].suffix == ".keras":
        lines.append(f"Next: speechemo predict CLIP --model {shlex.quote(display_name(files[0]))}")
    return text + "\n" + "\n".join(lines) + "\n"


def _in_words(result: HoldoutResult) -> list[str]:
    lines = []
    if result.seen:
        share = percent(result.seen.accuracy)
        lines.append(f"Other recordings of speakers it was trained on: right {share} of the time.")
    if result.new:
        speakers = display_name(", ".join(speaker_names(result.holdout.new_speakers).values()))
        lines.append(
            f"Unseen speakers ({speakers}): right {percent(result.new.accuracy)} of the time."
            " Expect this number on your own recordings, or less."
        )
    elif result.seen:
        lines.append(
            "This split shares speakers, and mostly repetitions of sentences, with the training:"
            " on unseen speakers expect far less (--split both measures it)."
        )
    elif result.calibration:
        left_out = result.calibration.result
        accuracy = left_out.spread("accuracy")
        lines.append(
            f"Trained on every clip. Trainings that left speakers out were right"
            f" {percent(accuracy['pooled'])} of the time on them"
            f" ({interval('accuracy', accuracy['ci95'], left_out.no_interval, '95 % interval ')})."
        )
    else:
        lines.append("Trained on every clip: nothing was held out, so nothing is known of how good it is.")
    if result.calibration:
        n, right = result.calibration.near(0.8)
        share = f"{percent(right)} right" if n >= _ENOUGH else "too few to tell"
        lines.append(
            f"Confidences are corrected by a temperature of {result.calibration.temperature:.2f}. On speakers"
            f" left out, the {n} answers with 75 to 85 % confidence were {share}; ECE"
            f" {percent(result.calibration.result.scores.ece)}."
        )
    return lines
