"""Recordings that are joined, damaged, cut, tagged or no audio: what can be read is, and the rest is told."""

from __future__ import annotations

import io
import os
import re
import struct
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from audio_cases import (
    SR,
    TAG,
    by_libsndfile,
    check_read,
    chunk,
    decoded,
    encoded,
    in_16_bits,
    mp3,
    patched,
    read_both,
    voice,
)

from speechemo_cli.audio import reader
from speechemo_cli.audio.decode import AudioStream, _ogg_link
from speechemo_cli.audio.wav_header import Part
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError

CONFIG = AudioConfig()
Y = voice(2.0)


# --- one recording behind another

LINKS = [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", "PCM_16"), ("WAV", "PCM_16"), ("AIFF", "PCM_16")]


@pytest.mark.parametrize(("name", "subtype"), LINKS)
def test_joined_recordings_are_read_one_after_the_other(name: str, subtype: str) -> None:
    links = [encoded(voice(0.5 + 0.3 * i, f0=100 + 20 * i), SR, name, subtype) for i in range(4)]

    check_read(b"".join(links), np.concatenate([by_libsndfile(link) for link in links]), atol=1e-6)


@pytest.mark.parametrize(("name", "subtype"), LINKS)
def test_joined_recordings_of_another_kind_are_named(name: str, subtype: str) -> None:
    first = encoded(Y, SR, name, subtype)
    second = encoded(np.stack([Y, Y], axis=1), SR, name, subtype)

    y, (warning,) = read_both(first + second)

    np.testing.assert_allclose(y, by_libsndfile(first), atol=1e-6)
    assert re.fullmatch(r"not all read: after 2\.\d\d s a recording of 2 channels at \d+ Hz follows", warning)


def test_joined_recordings_that_cannot_be_read_are_named() -> None:
    first, second = encoded(Y), patched(encoded(Y), 20, "<H", 0x1234)

    y, (warning,) = read_both(first + second)

    np.testing.assert_array_equal(y, by_libsndfile(first))
    assert warning.startswith("not all read: after 2.00 s a recording follows that is not read (")


def test_joined_recordings_have_an_end() -> None:
    y = voice(1.0)[8000:8080]
    link = encoded(y - y.mean())

    y, warnings = read_both(1100 * link)

    assert len(y) == 1024 * 80
    assert warnings == ("not all read: more follow after 5.12 s, which are 1024 recordings",)


# --- what is damaged or cut


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("harm", ["cut", "flipped"])
def test_flac_loses_its_damage_alone(harm: str, channels: int) -> None:
    y = np.stack([voice(4.0, f0=120.0 + i) for i in range(channels)], axis=1)
    content = bytearray(encoded(y, container="FLAC"))
    whole = decoded(bytes(content)).y
    middle = len(content) // 2
    damaged = content[:middle] if harm == "cut" else content
    damaged[middle - 1] ^= 0xFF

    salvaged = decoded(bytes(damaged))

    # A voice that does not change takes as many bytes in each second; a frame of FLAC has 4,096 samples.
    before = round(1.5 * SR)
    np.testing.assert_array_equal(salvaged.y[:before], whole[:before])
    if harm == "flipped":
        assert len(whole) - 2 * 4096 <= len(salvaged.y) < len(whole)
        np.testing.assert_array_equal(salvaged.y[-SR:], whole[-SR:])
    else:
        assert 1.5 < salvaged.duration_s < 2.5
    assert salvaged.warnings[-1].startswith("damaged: ")


def pages(content: bytes) -> list[bytes]:
    starts = [match.start() for match in re.finditer(rb"OggS\0", content)]
    return [content[a:b] for a, b in zip(starts, [*starts[1:], len(content)], strict=True)]


@pytest.mark.parametrize(("codec", "sr"), [("VORBIS", SR), ("OPUS", 48000)])
def test_ogg_that_was_cut_is_never_read_without_a_word(codec: str, sr: int) -> None:
    whole = encoded(voice(6.0), SR, "OGG", codec)
    assert decoded(whole).warnings == ()
    ends = np.cumsum([len(page) for page in pages(whole)])[2:-1]
    assert len(ends) > 1
    cuts = {
        int(share * len(whole)): "ends within a page of its Ogg stream" for share in np.arange(0.35, 1, 0.1)
    }
    for n, told in (cuts | dict.fromkeys(ends, "ends before its Ogg stream does")).items():
        y, warnings = read_both(whole[:n])
        assert warnings == (f"truncated: the file {told}, after {len(y) / sr:.2f} s",)


@pytest.mark.parametrize("n", [1, 26, 300, 70_000])
def test_ogg_is_not_cut_by_what_follows_it(n: int) -> None:
    whole = encoded(voice(1.0), SR, "OGG", "VORBIS")
    assert decoded(whole + bytes(n)).warnings == ()


# --- MP3

LOUD_FIRST = np.concatenate([Y, 0.001 * voice(6.0)])


@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
@pytest.mark.parametrize(
    ("y", "sr"), [(LOUD_FIRST, 16000), (LOUD_FIRST[::-1], 44100)], ids=["loud-first", "quiet-first"]
)
def test_mp3_that_does_not_count_its_frames_is_read_to_its_end(mode: str, y: np.ndarray, sr: int) -> None:
    got, warnings = read_both(mp3(y, sr, mode, counted=False))

    # Without the count there is nothing that says how much silence the encoder put around.
    assert len(y) <= len(got) < len(y) + 5 * 1152
    assert warnings == ()
    # The same sound, later by what the encoder needs to begin.
    expected = by_libsndfile(mp3(y, sr, mode))
    later = int(np.argmax(np.correlate(got[: len(expected) + 2400], expected, "valid")))
    np.testing.assert_allclose(got[later : later + len(expected)], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"ID3\x04\0\0\0\x06\x0d\x20" + bytes(100_000), b""),
        (TAG + TAG, b""),
        (TAG + bytes(5000), b""),
        (bytes(3000), b""),
        (b"\r\n", b""),
        (b"", b"TAG" + b"x" * 125),
        (b"", b"x" * 4000 + b"APETAGEX" + struct.pack("<IIIIQ", 2000, 4032, 1, 0, 0)),
        (b"", bytes(60_000)),
        (b"", np.random.default_rng(5).bytes(60_000)),
    ],
    ids=["art", "two-tags", "padded-tag", "zeros", "lines", "ID3v1", "APE", "zeros-behind", "noise-behind"],
)
@pytest.mark.parametrize("counted", [False, True])
def test_mp3_has_no_sound_around_its_frames(counted: bool, before: bytes, after: bytes) -> None:
    content = mp3(Y, SR, "CONSTANT", counted=counted)
    expected, warnings = read_both(content)
    assert warnings == ()

    y, warnings = read_both(before + content + after)

    assert warnings == ()
    np.testing.assert_array_equal(y[: len(expected)], expected)
    # With something behind them FFmpeg leaves the silence that the encoder filled the last frame with.
    assert len(y) - len(expected) < (1152 if after else 1)


def test_mp3_that_counts_too_few_frames_is_read_to_its_end() -> None:
    content = mp3(voice(6.0))
    at = re.search(rb"Xing|Info", content).start() + 8

    y, _ = read_both(patched(content, at, ">I", 50))

    assert len(y) / SR == pytest.approx(6.0, abs=0.2)


def test_mp3_files_that_were_joined_are_read_one_after_the_other() -> None:
    files = [mp3(voice(seconds)) for seconds in (2.0, 3.0)]

    y, _ = read_both(TAG.join(files))

    first, second = map(by_libsndfile, files)
    np.testing.assert_allclose(y[: len(first)], first, atol=1e-6)
    # Between them stands what the second encoder put before its sound.
    behind = len(y) - len(second)
    assert 0 <= behind - len(first) < 2400
    later = int(np.argmax(np.correlate(y[len(first) :], second, "valid"))) + len(first)
    np.testing.assert_allclose(y[later : later + len(second)][2000:-2000], second[2000:-2000], atol=1e-4)


@pytest.mark.parametrize("counted", [False, True])
def test_mp3_with_a_hole_is_read_behind_it_with_a_warning(counted: bool) -> None:
    content = mp3(voice(8.0), SR, "CONSTANT", counted=counted)
    middle = len(content) // 2
    harmed = content[:middle] + np.random.default_rng(2).bytes(5000) + content[middle + 5000 :]

    y, warnings = read_both(harmed)

    assert len(y) / SR == pytest.approx(8.0 * (1 - 5000 / len(content)), abs=0.4)
    assert re.fullmatch(r"damaged: \d+ parts? of its sound cannot be decoded", warnings[0])


@pytest.mark.parametrize("counted", [False, True])
def test_mp3_within_a_wav_is_mp3(counted: bool) -> None:
    content = mp3(LOUD_FIRST, counted=counted)
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, SR, 4000, 1, 0, 12, 1, 2, 144, 1, 0)

    y, warnings = read_both(chunk(b"RIFF", b"WAVE" + chunk(b"fmt ", form) + chunk(b"data", content)))

    expected, _ = read_both(content)
    np.testing.assert_array_equal(y, expected)
    assert warnings == ()


def test_mp3_that_is_too_long_is_refused_with_its_length() -> None:
    content = mp3(voice(6.0), SR, "CONSTANT", counted=False)

    with pytest.raises(AudioError, match=r"^1[12]\d s is longer than 5 s"):
        decoded(20 * content, AudioConfig(max_duration_s=5.0))
    assert decoded(20 * content).duration_s == pytest.approx(120.0, abs=4.0)


# --- tags before other formats


@pytest.mark.parametrize("name", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "FLAC", "OGG"])
@pytest.mark.parametrize("before", [TAG, TAG + bytes(700), TAG + TAG], ids=["tag", "padded-tag", "two-tags"])
def test_tags_before_a_recording_are_none_of_it(name: str, before: bytes) -> None:
    whole = encoded(Y, SR, name, "VORBIS" if name == "OGG" else "PCM_16")

    check_read(before + whole, by_libsndfile(whole), atol=1e-6)


# --- what nobody records


FRAMES = mp3(Y, SR, "CONSTANT", counted=False)[:2000]
HOSTILE = {
    "chunks": encoded(Y)[:36] + 100_000 * b"junk\0\0\0\0",
    "chunks-behind": encoded(Y) + 100_000 * b"junk\0\0\0\0",
    "chunks-of-samples": encoded(Y) + 100_000 * b"data\0\0\0\0",
    "pages": encoded(Y, SR, "OGG", "VORBIS")[:4000] + 50_000 * (b"OggS\0" + bytes(22) + b"x"),
    "syncs": FRAMES + 1_000_000 * b"\xff\xfb\x90",
    "frames": 100 * (FRAMES + 5000 * b"\xff\xfb\x90"),
    "streams": 100_000 * b"fLaC\0\0\0\x22",
    "tags": 300_000 * TAG,
    "zeros": bytes(8_000_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_decoding_ends_for_files_made_to_be_walked_for_ever(name: str) -> None:
    start = time.process_time()
    with suppress(AudioError):
        read_both(HOSTILE[name])
    assert time.process_time() - start < 10


# --- what is no audio


@pytest.mark.parametrize(
    ("suffixes", "reason"),
    [
        ((".", ".pcm", ".raw"), r"raw PCM\?\)\. Say its rate, --raw 16000, or .*s16le -ar 16000"),
        ((".sln",), r"Say its rate, --raw 8000, or .*s16le -ar 8000"),
        ((".gsm",), r"raw PCM\?\)\. Convert it: ffmpeg -f gsm -i FILE clip\.wav"),
        ((".g722",), r"Convert it: ffmpeg -f g722"),
        ((".vox",), r"Convert it: sox -t vox -r 8000 FILE clip\.wav"),
        ((".ulaw", ".ul", ".PCMU"), r"Convert it: ffmpeg -f mulaw -ar 8000"),
        ((".alaw", ".al", ".pcma"), r"Convert it: ffmpeg -f alaw -ar 8000"),
    ],
)
def test_refusal_names_samples_without_a_header_and_what_converts_them(
    suffixes: tuple[str, ...], reason: str
) -> None:
    for suffix in suffixes:
        Path(f"clip{suffix}").write_bytes(in_16_bits(voice(1.0)).tobytes())
        with pytest.raises(AudioError, match=reason):
            reader.read(f"clip{suffix}", CONFIG)


@pytest.mark.parametrize(("sr", "f0"), [(8000, 80), (8000, 250), (16000, 140), (48000, 80), (48000, 250)])
def test_refusal_tells_speech_without_a_header_from_noise(
    sr: int, f0: float, rng: np.random.Generator
) -> None:
    with pytest.raises(AudioError, match=r"^no header \(raw PCM\?\)"):
        decoded(in_16_bits(voice(2.0, sr, f0)).tobytes())
    with pytest.raises(AudioError, match=r"^not audio that can be read"):
        decoded(rng.bytes(4 * sr))


# --- parts of a file


def test_ogg_streams_side_by_side_are_no_chain() -> None:
    whole = pages(encoded(voice(2.0), SR, "OGG", "VORBIS"))
    other = patched(whole[0], 14, "<I", 12345)
    side_by_side = b"".join([other, *whole[:-1], patched(whole[-1], 14, "<I", 12345), whole[-1]])

    assert _ogg_link(io.BytesIO(side_by_side), 0, len(side_by_side)) == (len(side_by_side), "")


@pytest.mark.parametrize("n", [2**31 - 1, 2**63 - 1, -1, -(2**63)])
def test_part_takes_any_place_that_a_header_sends_a_decoder_to(n: int) -> None:
    file = Part(io.BytesIO(b"12345"), 0, 5)
    for whence in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
        file.seek(2)
        file.seek(n, whence)
        assert file.tell() >= 0
        assert len(file.read(8)) <= 5


def test_part_ends_where_the_disk_fails() -> None:
    class Failing(io.BytesIO):
        def read(self, n: int | None = -1) -> bytes:
            if self.tell() > 20000:
                raise OSError(5, "Input/output error")
            return super().read(n)

    stream = AudioStream(Failing(encoded(voice())), CONFIG)
    assert len(stream.read(10000)) == 10000
    assert len(stream.read(5000)) == 0
