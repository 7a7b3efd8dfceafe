"""`speechemo show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechemo_cli.cli import options, terminal
from speechemo_cli.cli.outputs import protect
from speechemo_cli.errors import ClipError, NoInputError
from speechemo_cli.files import display_name


def run(
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="An audio file of up to a minute.")],
    plot: Annotated[Path, typer.Option(metavar="FILE.png", help="Where the picture goes.")],
    model: options.Model = None,
    *,
    settings: options.Settings,
) -> None:
    """Draw a clip: waveform, speech, mel spectrogram, MFCCs, pitch, and the answer for it.

    The answer is that of `speechemo predict`, for the mean of all channels.
    """
    from speechemo_cli.audio import reader
    from speechemo_cli.inference import plots
    from speechemo_cli.inference.predictor import Predictor
    from speechemo_cli.models import model_file

    options.check_output("--plot", plot, ".png")
    config = settings.config()
    path = model_file.find(model, config.models)
    protect({"--plot": [plot]}, [clip, path, model_file.litert_path(path), settings.config_file])
    (answer,) = Predictor.open(path, config).predict_one(clip)
    if isinstance(answer, ClipError):
        raise NoInputError(f"{display_name(clip)}: {answer.error}")
    with reader.clip_errors():
        (recording,) = reader.read_channels(clip, config.audio)
        y = reader.resample(recording.y, recording.sr, plots.CLIP_SR)
    plots.draw_clip(y, answer, plot)
    terminal.note(f"model: {model_file.shown(path)}; picture: {display_name(plot)}")
    for warning in answer.warnings:
        terminal.warn(warning)
    terminal.emit(f"{answer.label} {answer.confidence:.0%}")
