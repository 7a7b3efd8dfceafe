"""Which clips a resumed run need not answer again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from speechemo_cli.cli.predict import unchanged
from speechemo_cli.config import AudioConfig
from speechemo_cli.inference.predictor import Answer

CONFIG = AudioConfig()


def answer(channel: str | None = None) -> Answer:
    return Answer("clip.wav", "happy", 1.0, {"happy": 1.0, "sad": 0.0}, 1.0, channel=channel)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_unchanged_keeps_the_answer_for_the_same_content_alone(write_clip: Callable[..., Path]) -> None:
    path = write_clip("clip.wav")
    previous = {digest(path): [answer()]}

    assert unchanged(str(path), None, previous, "mix", CONFIG) == [answer()]
    assert unchanged("-", path.read_bytes(), previous, "mix", CONFIG) == [answer()]
    assert unchanged(str(path), None, {}, "mix", CONFIG) == []
    write_clip("clip.wav", f0=300)
    assert unchanged(str(path), None, previous, "mix", CONFIG) == []


@pytest.mark.parametrize("spoilt", ["gone", "folder"])
def test_unchanged_leaves_what_cannot_be_read_to_the_predictor(spoilt: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    if spoilt == "folder":
        path.mkdir()

    assert unchanged(str(path), None, {"0" * 64: [answer()]}, "mix", CONFIG) == []


def test_unchanged_keeps_all_channels_or_none(
    write_clip: Callable[..., Path], rng: np.random.Generator
) -> None:
    path = write_clip("clip.wav", y=rng.uniform(-0.5, 0.5, (16000, 2)))
    left, right = answer("left"), answer("right")

    def kept(*answers: Answer) -> list[Answer]:
        return unchanged(str(path), None, {digest(path): list(answers)}, "each", CONFIG)

    assert kept(left, right) == kept(right, left) == [left, right]
    # A run that was broken off between the two, or refused one that can be read now.
    assert kept(left) == kept(right) == kept() == []


def test_unchanged_keeps_no_channels_of_what_is_damaged() -> None:
    m4a = b"\0\0\0\x20ftypM4A " + bytes(64)  # the beginning of one
    previous = {hashlib.sha256(m4a).hexdigest(): [answer("left")]}

    assert unchanged("x", m4a, previous, "each", CONFIG) == []
