"""What libsndfile does not read goes through ffmpeg, and says so where there is none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechemo_cli.audio import ffmpeg, reader, source
from speechemo_cli.audio.blocks import open_blocks
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError


@pytest.fixture
def m4a(write_clip: Callable[..., Path]) -> Callable[..., Path]:
    """Write a clip as AAC in an MP4: `m4a(seconds=1.0, sr=16000)`."""

    def write(seconds: float = 1.0, sr: int = 16000) -> Path:
        wav = write_clip(seconds=seconds, sr=sr)
        target = wav.with_suffix(".m4a")
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", wav, target], check=True)
        return target

    return write


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\0\0\0\x1cftypM4A ", True),
        (b"\x1aE\xdf\xa3\x01\0\0\0", True),
        (b"\xff\xf1L@", True),
        (b"\xff\xfb\x90\0", False),  # MP3, which libsndfile reads
        (b"RIFF\0\0\0\0WAVE", False),
        (b"RIFF\0\0\0\0AVI LIST", True),
        (b"#EXTM3U\nhttp://", False),
        (b"", False),
    ],
)
def test_only_known_beginnings_are_for_ffmpeg(head: bytes, expected: bool) -> None:
    assert source.needs_ffmpeg(head) == expected


def test_without_ffmpeg_the_way_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    clip = tmp_path / "voice.m4a"
    clip.write_bytes(b"\0\0\0\x1cftypM4A " + bytes(100))

    with pytest.raises(
        AudioError, match=r"only ffmpeg reads this format\. Install ffmpeg, or convert the file"
    ):
        reader.read(clip, AudioConfig())


def test_it_is_asked_for_files_alone_and_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A program that notes how it was called and does nothing else.
    asked = tmp_path / "asked"
    program = tmp_path / "ffmpeg"
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > "{asked}"\necho "file:x: no sound in it" >&2\nexit 1\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)

    with (
        pytest.raises(AudioError, match=r"ffmpeg cannot read it \(file:x: no sound in it\)"),
        ffmpeg.decoded(b"content", 5.0),
    ):
        pass

    arguments = asked.read_text().splitlines()
    assert arguments[arguments.index("-protocol_whitelist") + 1] == "file"
    assert arguments[arguments.index("-i") + 1].startswith("file:/")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_clip_comes_back_as_it_went_in(m4a: Callable[..., Path]) -> None:
    path = m4a(seconds=1.5, sr=22050)

    recording = reader.read(path, AudioConfig())

    original, sr = soundfile.read(path.with_suffix(".wav"), dtype="float32")
    assert recording.sr == sr
    assert recording.duration_s == pytest.approx(1.5, abs=0.1)
    n = min(len(original), len(recording.y))
    assert np.corrcoef(original[:n], recording.y[:n])[0, 1] > 0.98


def test_the_limits_hold_and_a_cut_file_is_refused(m4a: Callable[..., Path]) -> None:
    path = m4a(seconds=3.0)

    with pytest.raises(AudioError, match="longer than 1 s"):
        reader.read(path, AudioConfig(max_duration_s=1.0))
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(AudioError, match="ffmpeg cannot read it"):
        reader.read(path, AudioConfig())


def test_a_recording_is_read_in_blocks_too(m4a: Callable[..., Path]) -> None:
    path = m4a(seconds=2.5)

    with open_blocks(path, 16000, AudioConfig()) as blocks:
        y = np.concatenate(list(blocks))

    np.testing.assert_array_equal(y, reader.read(path, AudioConfig()).y)
