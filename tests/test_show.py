"""A clip as a picture with the answer for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import harmonic
from matplotlib import image

from speechemo_cli.cli import app
from speechemo_cli.errors import DataError
from speechemo_cli.inference import plots
from speechemo_cli.inference.predictor import Answer, Predictor

ANSWER = Answer("clip.wav", "sad", 0.75, {"sad": 0.75, "angry": 0.25}, 1.0, ("band-limited: as a telephone",))


def test_show_draws_the_clip_and_answers_as_predict_does(
    write_clip: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip("clip.wav")
    # What librosa compiles for it takes half a minute.
    monkeypatch.setattr(plots, "track_pitch", lambda *_: (np.linspace(0, 1, 9), np.full(9, 140.0)))

    code = app.run(["show", str(clip), "--plot", "clip.png"])

    out, err = capsys.readouterr()
    (answer,) = Predictor.open().predict([clip])
    assert (code, out) == (0, f"{answer.label} {answer.confidence:.0%}\n")
    assert "picture: clip.png" in err
    assert image.imread("clip.png").shape == (1575, 1350, 4)


@pytest.mark.slow
def test_track_pitch_finds_that_of_speech_alone() -> None:
    hum = 0.1 * np.sin(2 * np.pi * 500 * np.arange(plots.CLIP_SR) / plots.CLIP_SR)
    y = np.concatenate([harmonic(1.0, plots.CLIP_SR, f0=140.0), hum]).astype(np.float32)

    times, f0 = plots.track_pitch(y, np.array([[0.1, 0.9]]))

    assert np.nanmedian(f0) == pytest.approx(140.0, rel=0.01)
    assert np.isnan(f0[(times < 0.1) | (times >= 0.9)]).all()
    assert np.isnan(plots.track_pitch(y, np.empty((0, 2)))[1]).all()


@pytest.mark.slow
def test_show_draws_noise_and_any_name(tmp_path: Path, rng: np.random.Generator) -> None:
    noise = rng.normal(0, 0.1, plots.CLIP_SR).astype(np.float32)
    odd = Answer("$x$_声\n.wav", "$a$", 1.0, {"$a$": 1.0, "b": 0.0}, 1.0)

    plots.draw_clip(noise, odd, tmp_path / "clip.png")

    assert image.imread(tmp_path / "clip.png").shape == (1575, 1350, 4)


def test_show_refuses_what_is_too_long_for_a_picture(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lasts 61 s, expected up to 60 s\. .* speechemo timeline"):
        plots.draw_clip(np.zeros(61 * plots.CLIP_SR, np.float32), ANSWER, tmp_path / "clip.png")
    assert not (tmp_path / "clip.png").exists()
