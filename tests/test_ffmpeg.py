"""What libsndfile does not read goes through ffmpeg, and says so where there is none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechemo_cli.audio import ffmpeg, formats, reader
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
    assert formats.needs_ffmpeg(head) == expected


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
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(ffmpeg, "scratch_folder", lambda: tmp_path / "scratch")

    with (
        pytest.raises(AudioError, match=r"ffmpeg cannot read it \(file:x: no sound in it\)"),
        ffmpeg.decoded(b"content", 5.0),
    ):
        pass

    arguments = asked.read_text().splitlines()
    assert arguments[arguments.index("-protocol_whitelist") + 1] == "file"
    assert "mov" in arguments[arguments.index("-format_whitelist") + 1]
    assert arguments[arguments.index("-i") + 1].startswith("file:/")
    assert list((tmp_path / "scratch").iterdir()) == []


def play(program: Path, *lines: str) -> None:
    """Put a program in the place of ffmpeg; its last argument is where to write."""
    program.write_text(
        "\n".join(["#!/bin/sh", "for target; do :; done", 'target="${target#file:}"', *lines, ""])
    )
    program.chmod(0o755)


def test_one_that_does_not_come_to_an_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(tmp_path / "ffmpeg", "exec sleep 60")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(ffmpeg, "_PATIENCE_S", 0.6)

    with (
        pytest.raises(AudioError, match=r"^ffmpeg takes longer than 1 s to read it$"),
        ffmpeg.decoded(b"", 0.4),
    ):
        pass


def test_what_it_says_is_one_line_that_a_terminal_can_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(tmp_path / "ffmpeg", r"""printf '%s: \033[31mred\n' "$9" >&2; exit 1""")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    clip = tmp_path / "new\nline.m4a"
    clip.write_bytes(b"")

    with pytest.raises(AudioError) as caught, ffmpeg.decoded(clip):
        pass

    assert str(caught.value) == r"ffmpeg cannot read it (the file: \x1b[31mred)"


@pytest.mark.parametrize(
    ("says", "warnings"),
    [
        ([], ()),
        (["", "[aac @ 0x55d0] "], ()),
        (
            ["[in#0/mov,mp4,m4a @ 0x55da] stream 0, offset 0x44b5: partial file"],
            ('damaged: ffmpeg reports "stream 0, offset 0x44b5: partial file"',),
        ),
        (
            ["[aist#0:0/aac @ 0x5] [dec:aac @ 0x7] Bad\x1b[31m bits", "[aac @ 0x9] More", "Most"],
            (r'damaged: ffmpeg reports "Bad\x1b[31m bits", and 2 more',),
        ),
    ],
)
def test_what_it_complains_of_although_it_goes_on_is_a_warning(
    says: list[str], warnings: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("says").write_text("".join(f"{line}\n" for line in says))
    play(tmp_path / "ffmpeg", f'cat "{tmp_path}/says" >&2', 'echo sound > "$target"')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    with ffmpeg.decoded(b"content") as given:
        assert given.warnings == warnings
        assert given.path.read_bytes() == b"sound\n"


@pytest.mark.parametrize(
    ("suffix", "how"),
    [
        *((suffix, "cut") for suffix in (".m4a", ".mov", ".webm", ".mka", ".aac", ".flv")),
        *((suffix, "scrambled") for suffix in (".m4a", ".webm", ".aac")),
    ],
)
def test_it_complains_of_a_damaged_file_and_not_of_a_whole_one(
    suffix: str, how: str, write_clip: Callable[..., Path], rng: np.random.Generator
) -> None:
    path = write_clip(seconds=3.0).with_suffix(suffix)
    fast = ["-movflags", "+faststart"] if suffix in (".m4a", ".mov") else []
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", path.with_suffix(".wav"), "-ar", "48000", *fast, path], check=True
    )
    content = path.read_bytes()
    half, third = len(content) // 2, len(content) // 3
    damaged = content[:third] + rng.bytes(third) + content[2 * third :]

    with ffmpeg.decoded(content, 601.0) as given:
        assert given.warnings == ()
    with ffmpeg.decoded(content[:half] if how == "cut" else damaged, 601.0) as given:
        (warning,) = given.warnings
        assert warning.startswith('damaged: ffmpeg reports "')
        assert " @ 0x" not in warning


def test_a_damaged_file_is_heard_with_a_warning_whole_or_in_blocks_and_refused_by_who_is_strict(
    write_clip: Callable[..., Path],
) -> None:
    path = write_clip(seconds=3.0).with_suffix(".m4a")
    fast = ["-movflags", "+faststart"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", path.with_suffix(".wav"), *fast, path], check=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    recording = reader.read(path, AudioConfig())
    with open_blocks(path, recording.sr, AudioConfig()) as blocks:
        y = np.concatenate(list(blocks))

    assert 1.0 < recording.duration_s < 2.0
    assert [warning.partition(" reports ")[0] for warning in recording.warnings] == ["damaged: ffmpeg"]
    assert blocks.warnings == recording.warnings
    np.testing.assert_array_equal(y, recording.y)
    with pytest.raises(AudioError, match=r"^damaged: ffmpeg reports"):
        reader.read(path, AudioConfig(strict=True))
    with (
        open_blocks(path, 16000, AudioConfig(strict=True)) as strict,
        pytest.raises(AudioError, match=r"^damag"),
    ):
        list(strict)


def test_a_picture_on_the_cover_is_no_damage(m4a: Callable[..., Path], tmp_path: Path) -> None:
    picture = ["-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", "-disposition:v", "attached_pic"]
    target = tmp_path / "cover.m4a"
    command = ["ffmpeg", "-v", "error", "-i", m4a(), *picture, "-c:a", "copy", "-c:v", "mjpeg", target]
    subprocess.run(command, check=True)

    with ffmpeg.decoded(target) as given:
        assert given.warnings == ()


def test_more_than_is_decoded_at_once_is_refused(
    m4a: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = m4a(seconds=2.0)
    monkeypatch.setattr(ffmpeg, "MOST_SAMPLES", 16000)

    with pytest.raises(AudioError, match=r"^more than 16000 samples\. Convert it"):
        reader.read(path, AudioConfig())


def test_a_file_of_another_format_behind_a_known_beginning_is_not_followed(tmp_path: Path) -> None:
    # What ffmpeg takes for a list of files to join, were it not for its list of formats.
    clip = tmp_path / "list.m4a"
    clip.write_bytes(b"\0\0\0\x1cftypM4A \nffconcat version 1.0\nfile '/etc/passwd'\n")

    with pytest.raises(AudioError, match="ffmpeg cannot read it"):
        reader.read(clip, AudioConfig())


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
