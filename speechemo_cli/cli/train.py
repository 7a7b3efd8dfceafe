"""`speechemo train`."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speechemo_cli.cli import options, render
from speechemo_cli.cli.extract import exit_for, say_corpus
from speechemo_cli.errors import AccessError, ModelFileError
from speechemo_cli.evaluation.wording import percent
from speechemo_cli.files import display_name

if TYPE_CHECKING:
    from speechemo_cli.evaluation.holdout import HoldoutResult
    from speechemo_cli.evaluation.metrics import Scores


def run(
    data: options.Data = None,
    version: Annotated[options.Version, typer.Option(help="Which network.")] = options.Version.v2,
    split: Annotated[
        options.Split | None,
        typer.Option(
            show_default="both",
            help="What to hold out: whole speakers and clips, clips alone, or nothing.",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", show_default="the version's own", help="Passes over the clips.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            show_default="models/VERSION.keras",
            help="Where the model goes.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a killed training of the same kind stopped.")
    ] = False,
    calibrate: options.Calibrate = None,
    seed: options.Seed = None,
    store: options.Store = None,
    jobs: options.Jobs = None,
    song: options.Song = None,
    strict: options.Strict = None,
    format_: options.DocumentFormat = None,
    config_file: options.ConfigFile = None,
    sets: options.Sets = None,
    quiet: options.Quiet = False,
) -> None:
    """Train a network on the clips in DATA and measure it on clips and speakers it has not heard.

    Writes models/VERSION.keras and the learning curve beside it. Features that the store lacks are
    extracted first.
    """
    started = time.perf_counter()
    from speechemo_cli.corpus.layouts import find_clips
    from speechemo_cli.evaluation import holdout, plots, protocols
    from speechemo_cli.features import dataset
    from speechemo_cli.models import model_file, twin, version_module

    render.set_quiet(quiet)
    config = options.build_config(
        config_file,
        sets,
        data=data,
        store=store,
        jobs=jobs,
        song=song,
        audio__strict=strict,
        seed=seed,
        train__split=split.value if split else None,
        train__epochs=epochs,
        train__calibrate=calibrate,
    )
    path = output or model_file.default_path(config.models, version.value)
    options.check_output("--output", path, model_file.SUFFIX, any_case=False)
    preset = protocols.preset_of(version.value, config)
    model_file.require_moderate(preset.feature_set, config)
    corpus = find_clips(config.data, song=config.song)
    say_corpus(config.data, corpus)
    with render.progress("extracting", "clips") as update:
        clips = dataset.load(
            corpus.clips,
            config,
            preset.feature_set,
            prepare=version_module(version.value).prepare,
            on_progress=update,
        )
    render.say_extraction(clips.extraction)
    config = options.split_for(config, corpus.speakers, asked=split is not None)
    if holdout.unfinished_training(version.value, clips, config).exists():
        render.note(
            "going on with the unfinished training"
            if resume
            else "an unfinished training of this kind is given up (--resume goes on with it)"
        )
    with render.progress("training", "epochs") as update:
        result = holdout.train_with_holdout(
            version.value,
            clips,
            config,
            lambda stage, done, total, values: update(done, total, _epoch_text(values), stage),
            resume=resume,
        )
    if preset.calibrate and result.calibration is None:
        render.say_uncalibrated()
    numbers = _numbers(result)
    document = {
        "version": version.value,
        "model": str(path),
        "learning_curve": str(path.with_suffix(".png")),
        "epochs": preset.epochs,
        "seed": config.seed,
        "split": config.train.split,
        "labels": list(clips.labels),
        **numbers,
        "failed": [{"path": f.path, "error": f.error} for f in clips.extraction.failed],
        "seconds": round(time.perf_counter() - started, 3),
    }
    metadata = replace(result.metadata, results=numbers)
    try:
        metadata = replace(metadata, twin=twin.write(result.model, metadata, twin.beside(path)))
    except (AccessError, ModelFileError) as error:
        render.warn(f"{error.message}. predict will run it with Keras, which takes longer to start")
    model_file.save(result.model, metadata, path)
    plots.learning_curve(
        result.history, f"{version.value}, {len(result.holdout.train)} clips", path.with_suffix(".png")
    )
    if options.is_table(format_):
        render.emit(_table(result, path, preset.epochs, config.seed))
    else:
        render.emit_json("train", document)
    exit_for(corpus, clips.extraction)


def _epoch_text(values: Any) -> str:
    names = {"train": "train", "seen": "known voices", "new": "new voices"}
    return "  ".join(
        f"{words} {100 * values[f'{name}_accuracy']:.0f} %"
        for name, words in names.items()
        if f"{name}_accuracy" in values
    )


def _numbers(result: HoldoutResult) -> dict[str, Any]:
    """Return the results as JSON has them and as the model file keeps them."""

    def part(scores: Scores | None, **more: Any) -> dict[str, Any] | None:
        return None if scores is None else {**scores.to_dict(), **more}

    return {
        "train": {"accuracy": result.train.accuracy, "n": result.train.n},
        "test": {
            "seen_speakers": part(result.seen),
            "new_speakers": part(result.new, speakers=list(result.holdout.new_speakers)),
        },
        "temperature": result.metadata.temperature,
        "cross_validated": result.calibration.result.to_dict() if result.calibration else None,
    }


def _table(result: HoldoutResult, path: Path, epochs: int, seed: int) -> str:
    left_out = result.calibration.result.pooled if result.calibration else None
    parts = {
        "training clips": result.train,
        "the same, each voice left out in its turn": left_out,
        "held out, known voices": result.seen,
        "held out, new voices": result.new,
    }
    shown = {name: scores for name, scores in parts.items() if scores is not None}
    rows = [[name, str(s.n), percent(s.accuracy), percent(s.uar)] for name, s in shown.items()]
    text = render.table(
        ["", "clips", "accuracy", "UAR"],
        rows,
        title=f"{result.metadata.version}, {epochs} epochs, seed {seed}",
    )
    tested = {
        name: scores
        for name, scores in (("known voices", result.seen), ("new voices", result.new))
        if scores is not None
    }
    if tested:
        text += "\n" + render.per_class_table(tested)
    return text + "\n" + "\n".join([*_in_words(result), f"model: {display_name(path)}"]) + "\n"


def _in_words(result: HoldoutResult) -> list[str]:
    lines = []
    if result.seen:
        share = percent(result.seen.accuracy)
        lines.append(f"Voices it was trained on, other recordings: right {share} of the time.")
    if result.new:
        speakers = ", ".join(result.holdout.new_speakers)
        lines.append(
            f"Voices it never heard ({speakers}): right {percent(result.new.accuracy)} of the time."
            " Expect this number on your own recordings, or less."
        )
    elif result.seen:
        lines.append(
            "This split shares speakers, and mostly twin recordings, with the training:"
            " on new voices expect far less (--split both measures it)."
        )
    elif result.calibration:
        accuracy = result.calibration.result.spread("accuracy")
        low, high = accuracy["ci95"]
        lines.append(
            f"Trained on every clip. Trainings that left voices out were right"
            f" {percent(accuracy['pooled'])} of the time on them"
            f" (95 % interval {percent(low)} to {percent(high)})."
        )
    else:
        lines.append("Trained on every clip: nothing was held out, so nothing is known of how good it is.")
    if result.calibration:
        lines.append(
            f"Confidences are corrected by a temperature of {result.calibration.temperature:.2f}:"
            " of the answers with 80 %, about eight in ten are right on such voices."
        )
    return lines
