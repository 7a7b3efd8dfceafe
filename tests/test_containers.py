"""All the sound of a file is heard, whatever its header says of it; where it lies, and where it ends."""

from __future__ import annotations

import io
import re
import struct
import time
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from audio_cases import SR, encoded, mp3, patched, sound_sizes, voice, with_comment, without_count

from speechemo_cli.audio import containers, reader
from speechemo_cli.audio.blocks import open_blocks
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError

CONFIG = AudioConfig()
Y = voice(2.0)
SIZED = ["WAV", "RIFX", "RF64", "W64", "AIFF", "AU", "CAF"]
TAG = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)


def container(name: str, y: np.ndarray = Y) -> bytes:
    if name != "RIFX":
        return encoded(y, container=name)
    buffer = io.BytesIO()
    soundfile.write(buffer, y, SR, format="WAV", subtype="PCM_16", endian="BIG")
    return buffer.getvalue()


def heard(content: bytes, folder: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a file whole and in blocks, which is to be the same."""
    path = folder / "clip"
    path.write_bytes(content)
    (recording,) = reader.read_channels(path, CONFIG)
    with open_blocks(path, recording.sr, CONFIG) as blocks:
        joined = np.concatenate(list(blocks))
    np.testing.assert_allclose(joined, recording.y, atol=1e-6)
    assert blocks.warnings == recording.warnings
    return recording.y, recording.warnings


def samples(content: bytes) -> np.ndarray:
    """Decode with libsndfile; Opus with FFmpeg, which keeps its rate of 48 kHz."""
    if b"OpusHead" in content:
        with av.open(io.BytesIO(content), format="ogg") as file:
            return np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    y, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    return y


# --- what a file says of itself in words


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", ["9" * 400, "64000", "0", "-1"])
def test_a_comment_that_speaks_of_sizes_is_a_comment(number: str, after: bool, tmp_path: Path) -> None:
    plain = encoded(Y)
    for name in ("data", "SSND", "riff"):
        content = with_comment(plain, f"\n{name} : {number} (should be 1)\n", after=after)

        y, warnings = heard(content, tmp_path)

        assert warnings == ()
        np.testing.assert_array_equal(y, samples(plain))


# --- sizes that say less than there is, or nothing


@pytest.mark.parametrize("name", SIZED)
@pytest.mark.parametrize("share", [0.0001, 0.3, 0.9])
def test_samples_that_a_header_does_not_count_are_heard_with_a_warning(
    name: str, share: float, tmp_path: Path
) -> None:
    whole = container(name)
    size = round(share * len(Y)) * 2

    y, warnings = heard(sound_sizes(whole, size), tmp_path)

    np.testing.assert_array_equal(y, samples(whole))
    assert warnings == (
        f"stale header: it promises {size / 2 / SR:.2f} s, the file holds 2.00 s, all of which is heard",
    )
    with pytest.raises(AudioError, match=r"^stale header"):
        reader.read(tmp_path / "clip", AudioConfig(strict=True))


@pytest.mark.parametrize("name", SIZED)
@pytest.mark.parametrize("size", [0, -1])
def test_a_stream_of_which_nobody_knew_the_length_is_heard_to_its_end(
    name: str, size: int, tmp_path: Path
) -> None:
    whole = container(name)

    y, warnings = heard(sound_sizes(whole, size), tmp_path)

    np.testing.assert_array_equal(y, samples(whole))
    assert warnings == ()


@pytest.mark.parametrize("name", [*SIZED, "NIST"])
@pytest.mark.parametrize("share", [0.3, 0.75])
def test_every_container_with_a_size_that_was_cut_is_warned_about(
    name: str, share: float, tmp_path: Path
) -> None:
    whole = container(name)
    lost = 2 * round((1 - share) * len(Y))

    y, warnings = heard(whole[: len(whole) - lost], tmp_path)

    # Some containers end in chunks without sound.
    assert len(y) / len(Y) == pytest.approx(share, abs=0.01)
    np.testing.assert_array_equal(y, samples(whole)[: len(y)])
    assert warnings == (f"truncated: the header promises 2.00 s, the file holds {len(y) / SR:.2f} s",)


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM"])
def test_coded_samples_that_a_header_does_not_count_are_heard(subtype: str, tmp_path: Path) -> None:
    whole = encoded(Y, subtype=subtype)
    at = whole.index(b"data") + 4
    (size,) = struct.unpack_from("<I", whole, at)

    y, _ = heard(patched(whole, at, "<I", size // 2), tmp_path)

    # FFmpeg rounds the steps of IMA otherwise than libsndfile.
    np.testing.assert_allclose(y, samples(whole)[: len(y)], atol=0.02)
    assert abs(len(y) - len(Y)) < 1024


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "FLOAT", "ULAW"])
def test_sizes_are_those_of_the_codec(subtype: str, tmp_path: Path) -> None:
    whole = encoded(Y, subtype=subtype)
    at = whole.index(b"data") + 4
    (size,) = struct.unpack_from("<I", whole, at)

    y, warnings = heard(patched(whole, at, "<I", size // 2), tmp_path)

    np.testing.assert_allclose(y, samples(whole), atol=1e-6)
    assert len(warnings) == 1
    assert re.fullmatch(r"stale header: it promises 1\.0\d s, the file holds 2\.\d\d s, .*", warnings[0])


@pytest.mark.parametrize(
    "behind",
    [
        *(bytes(n) for n in (1, 100, 1000, 50_000, 3_000_000)),
        b"LIST" + struct.pack("<I", 2000) + b"INFO" + b"x" * 1996,
        b"id3 " + struct.pack("<I", 600) + TAG + b"x" * 580,
        TAG + b"x" * 2000,
        b"TAG" + b"x" * 125,
        np.random.default_rng(3).bytes(300),
        b"\xff" * 50_000,
        b"\xff\xd8\xff\xe0" + np.random.default_rng(3).bytes(5000),
        b"PK\3\4" + np.random.default_rng(3).bytes(5000),
        b"RIFF" + struct.pack("<I", 5000) + b"AVI " + np.random.default_rng(3).bytes(4996),
        b"<?xml version='1.0'?>\n" + b"<axml/>\n" * 200,
        b"iXML" + struct.pack("<I", 9000) + b"<x/>" * 500,
        b"\0iXML" + struct.pack("<I", 2000) + b"<x/>" * 500,
        "Grüße aus dem Studio\n".encode() * 50,
        "Grüße aus dem Studio\n".encode("utf-16") * 50,
        b"\x1f\x8b\x08" + np.random.default_rng(3).bytes(5000),
    ],
    ids=[
        *("byte", "zeros", "sector", "cluster", "megabytes", "LIST", "id3", "ID3", "ID3v1", "remnant"),
        *("erased", "JPEG", "zip", "AVI", "text", "cut iXML", "shifted iXML", "UTF-8", "UTF-16", "gzip"),
    ],
)
def test_what_stands_behind_the_samples_and_is_none_is_not_heard(behind: bytes, tmp_path: Path) -> None:
    whole = encoded(Y)

    y, warnings = heard(whole + behind, tmp_path)

    np.testing.assert_array_equal(y, samples(whole))
    assert warnings == ()


def test_a_chunk_behind_the_samples_of_a_w64_file_is_not_heard(tmp_path: Path) -> None:
    whole = container("W64")
    name = b"levl" + bytes.fromhex("f3acd3118cd100c04f8edb8a")
    chunk = name + struct.pack("<q", 24 + 40_000) + np.random.default_rng(3).bytes(40_000)

    y, warnings = heard(whole + chunk, tmp_path)

    np.testing.assert_array_equal(y, samples(whole))
    assert warnings == ()


def test_sound_behind_a_long_silence_that_nobody_counted_is_heard(tmp_path: Path) -> None:
    y = np.concatenate([Y, np.zeros(40 * SR, np.float32), Y])
    whole = encoded(y)
    n = 2 * len(Y)
    stale = whole[:4] + struct.pack("<I", n + 36) + whole[8:40] + struct.pack("<I", n) + whole[44:]

    received, warnings = heard(stale, tmp_path)

    np.testing.assert_array_equal(received, samples(whole))
    assert warnings[0] == "stale header: it promises 2.00 s, the file holds 44.00 s, all of which is heard"


@pytest.mark.parametrize("padding", [b"", b"\0"])
def test_an_odd_number_of_bytes_may_be_padded_or_not(padding: bytes, tmp_path: Path) -> None:
    whole = encoded(Y[:-1], subtype="PCM_U8").removesuffix(b"\0")
    assert len(whole) == 44 + len(Y) - 1

    y, warnings = heard(whole + padding + b"LIST" + struct.pack("<I", 2000) + b"INFO" + b"x" * 1996, tmp_path)

    assert len(y) == len(Y) - 1
    assert warnings == ()


def test_a_wave_of_the_broadcasters_large_kind_is_heard(tmp_path: Path) -> None:
    whole = encoded(Y, container="RF64")

    y, warnings = heard(b"BW64" + whole[4:], tmp_path)

    np.testing.assert_array_equal(y, samples(whole))
    assert warnings == ()


def test_both_of_two_chunks_of_samples_are_heard(tmp_path: Path) -> None:
    whole = encoded(Y)
    chunk = whole[whole.index(b"data") :]

    y, warnings = heard(whole + b"junk\x02\0\0\0ab" + chunk, tmp_path)

    np.testing.assert_array_equal(y, np.tile(samples(whole), 2))
    assert warnings == ()


# --- one recording behind another

LINKS = [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", "PCM_16"), ("WAV", "PCM_16"), ("AIFF", "PCM_16")]


@pytest.mark.parametrize(("name", "subtype"), LINKS)
@pytest.mark.parametrize("n", [2, 5])
def test_recordings_in_one_file_are_heard_one_after_the_other(
    name: str, subtype: str, n: int, tmp_path: Path
) -> None:
    links = [encoded(voice(0.5 + 0.3 * i, f0=100 + 20 * i), SR, name, subtype) for i in range(n)]

    y, warnings = heard(b"".join(links), tmp_path)

    np.testing.assert_allclose(y, np.concatenate([samples(link) for link in links]), atol=1e-6)
    assert warnings == ()


@pytest.mark.parametrize(("name", "subtype"), LINKS)
def test_a_recording_of_another_kind_behind_the_first_is_told(
    name: str, subtype: str, tmp_path: Path
) -> None:
    first = encoded(Y, SR, name, subtype)
    second = encoded(np.stack([Y, Y], axis=1), SR, name, subtype)

    y, warnings = heard(first + second, tmp_path)

    np.testing.assert_allclose(y, samples(first), atol=1e-6)
    assert len(warnings) == 1
    assert re.fullmatch(
        r"not all heard: after 2\.\d\d s a recording of 2 channels at \d+ Hz follows", warnings[0]
    )


def test_a_recording_that_cannot_be_read_behind_the_first_is_told(tmp_path: Path) -> None:
    first, second = encoded(Y), patched(encoded(Y), 20, "<H", 0x1234)

    y, warnings = heard(first + second, tmp_path)

    np.testing.assert_array_equal(y, samples(first))
    assert len(warnings) == 1
    assert warnings[0].startswith("not all heard: after 2.00 s a recording follows that is not read (")


def test_a_heap_of_recordings_has_an_end(tmp_path: Path) -> None:
    y = voice(1.0)[8000:8080]
    link = encoded(y - y.mean())

    y, warnings = heard(1500 * link, tmp_path)

    assert len(y) == 1024 * 80
    assert warnings == ("not all heard: more follow after 5.12 s, which are 1024 recordings",)


# --- Ogg


def pages(content: bytes) -> list[bytes]:
    starts = [match.start() for match in re.finditer(rb"OggS\0", content)]
    return [content[a:b] for a, b in zip(starts, [*starts[1:], len(content)], strict=True)]


@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
def test_an_ogg_file_that_ends_between_two_pages_is_cut(codec: str, tmp_path: Path) -> None:
    whole = pages(encoded(voice(6.0), SR, "OGG", codec))
    assert len(whole) > 4
    rate = 48000 if codec == "OPUS" else SR
    for n in range(3, len(whole)):
        y, warnings = heard(b"".join(whole[:n]), tmp_path)
        assert warnings == (
            f"truncated: the file ends before its Ogg stream does, after {len(y) / rate:.2f} s",
        )


def test_streams_side_by_side_are_no_chain() -> None:
    whole = pages(encoded(Y, SR, "OGG", "VORBIS"))
    other = patched(whole[0], 14, "<I", 12345)
    side_by_side = b"".join([other, *whole[:-1], patched(whole[-1], 14, "<I", 12345), whole[-1]])

    assert containers.ogg_link(io.BytesIO(side_by_side), 0, len(side_by_side)) == (len(side_by_side), "")


# --- MP3

LOUD_FIRST = np.concatenate([Y, 0.001 * voice(6.0)])


@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
@pytest.mark.parametrize("y", [LOUD_FIRST, LOUD_FIRST[::-1]], ids=["loud-first", "quiet-first"])
@pytest.mark.parametrize("sr", [16000, 44100])
def test_an_mp3_that_does_not_count_its_frames_is_read_to_its_end(
    mode: str, y: np.ndarray, sr: int, tmp_path: Path
) -> None:
    counted = mp3(y, sr, mode)

    got, warnings = heard(without_count(counted), tmp_path)

    # Without the count there is nothing that says how much silence the encoder put around.
    assert len(y) <= len(got) < len(y) + 5 * 1152
    assert warnings == ()
    # The same sound, later by what the encoder needs to begin.
    expected = samples(counted)
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
def test_what_stands_around_the_frames_of_an_mp3_is_no_sound(
    counted: bool, before: bytes, after: bytes, tmp_path: Path
) -> None:
    content = mp3(Y, SR, "CONSTANT")
    content = content if counted else without_count(content)
    expected, warnings = heard(content, tmp_path)
    assert warnings == ()

    y, warnings = heard(before + content + after, tmp_path)

    assert warnings == ()
    np.testing.assert_array_equal(y[: len(expected)], expected)
    # With something behind them FFmpeg leaves the silence that the encoder filled the last frame with.
    assert len(y) - len(expected) < (1152 if after else 1)


def test_frames_that_an_mp3_does_not_count_are_heard(tmp_path: Path) -> None:
    content = mp3(voice(6.0), SR, "VARIABLE")
    at = re.search(rb"Xing|Info", content).start() + 8

    y, _ = heard(patched(content, at, ">I", 50), tmp_path)

    assert len(y) / SR == pytest.approx(6.0, abs=0.2)


def test_mp3_files_that_were_joined_are_heard_one_after_the_other(tmp_path: Path) -> None:
    files = [mp3(voice(seconds), SR, "VARIABLE") for seconds in (2.0, 3.0)]

    y, _ = heard(TAG.join(files), tmp_path)

    first, second = map(samples, files)
    np.testing.assert_allclose(y[: len(first)], first, atol=1e-6)
    # Between them stands what the second encoder put before its sound.
    behind = len(y) - len(second)
    assert 0 <= behind - len(first) < 2400
    later = int(np.argmax(np.correlate(y[len(first) :], second, "valid"))) + len(first)
    np.testing.assert_allclose(y[later : later + len(second)][2000:-2000], second[2000:-2000], atol=1e-4)


@pytest.mark.parametrize("counted", [False, True])
def test_an_mp3_that_changes_its_rate_says_what_is_not_heard(counted: bool, tmp_path: Path) -> None:
    files = [mp3(voice(3.0, sr), sr, "CONSTANT") for sr in (16000, 22050)]
    files = files if counted else [without_count(file) for file in files]

    y, warnings = heard(b"".join(files), tmp_path)

    assert len(y) / SR == pytest.approx(3.0, abs=0.2)
    assert warnings == (
        f"not all heard: after {len(y) / SR:.2f} s a recording of 1 channel at 22050 Hz follows",
    )


@pytest.mark.parametrize("counted", [False, True])
def test_a_hole_in_an_mp3_is_told_and_what_follows_is_heard(counted: bool, tmp_path: Path) -> None:
    content = mp3(voice(8.0), SR, "CONSTANT")
    content = content if counted else without_count(content)
    middle = len(content) // 2
    harmed = content[:middle] + np.random.default_rng(2).bytes(5000) + content[middle + 5000 :]

    y, warnings = heard(harmed, tmp_path)

    share = 1 - 5000 / len(content)
    assert len(y) / SR == pytest.approx(8.0 * share, abs=0.4)
    assert re.fullmatch(r"damaged: \d+ parts? of its sound cannot be decoded", warnings[0])


def test_a_cut_mp3_that_counts_its_frames_is_told(tmp_path: Path) -> None:
    content = mp3(voice(8.0), SR, "CONSTANT")

    _, warnings = heard(content[: len(content) // 2], tmp_path)

    assert re.fullmatch(r"truncated: the header promises 8\.\d\d s, the file holds [34]\.\d\d s", warnings[0])


@pytest.mark.parametrize("counted", [False, True])
def test_mp3_within_a_wav_is_mp3(counted: bool, tmp_path: Path) -> None:
    content = mp3(LOUD_FIRST, SR, "VARIABLE")
    content = content if counted else without_count(content)
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, SR, 4000, 1, 0, 12, 1, 2, 144, 1, 0)
    chunks = (
        b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(content)) + content
    )
    wav = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks

    y, warnings = heard(wav, tmp_path)

    expected, _ = heard(content, tmp_path)
    np.testing.assert_array_equal(y, expected)
    assert warnings == ()


def test_an_mp3_without_a_count_that_is_too_long_is_told_by_its_length(tmp_path: Path) -> None:
    content = without_count(mp3(voice(6.0), SR, "CONSTANT"))
    path = tmp_path / "clip.mp3"
    path.write_bytes(20 * content)

    with pytest.raises(AudioError, match=r"^1[12]\d s is longer than 5 s"):
        reader.read(path, AudioConfig(max_duration_s=5.0))
    assert reader.read(path, CONFIG).duration_s == pytest.approx(120.0, abs=4.0)


# --- tags before other formats


@pytest.mark.parametrize("name", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "FLAC", "OGG"])
@pytest.mark.parametrize("before", [TAG, TAG + bytes(700), TAG + TAG], ids=["tag", "padded-tag", "two-tags"])
def test_a_tag_before_a_recording_is_none_of_it(name: str, before: bytes, tmp_path: Path) -> None:
    whole = encoded(Y, SR, name, "VORBIS" if name == "OGG" else "PCM_16")

    y, warnings = heard(before + whole, tmp_path)

    np.testing.assert_allclose(y, samples(whole), atol=1e-6)
    assert warnings == ()


# --- what nobody records


def hostile() -> dict[str, bytes]:
    frames = without_count(mp3(Y, SR, "CONSTANT"))[:2000]
    return {
        "chunks": encoded(Y)[:36] + 400_000 * b"junk\0\0\0\0",
        "chunks-behind": encoded(Y) + 400_000 * b"junk\0\0\0\0",
        "chunks-of-samples": encoded(Y) + 400_000 * b"data\0\0\0\0",
        "pages": encoded(Y, SR, "OGG", "VORBIS")[:4000] + 150_000 * (b"OggS\0" + bytes(22) + b"x"),
        "syncs": frames + 2_000_000 * b"\xff\xfb\x90",
        "frames": 200 * (frames + 5000 * b"\xff\xfb\x90"),
        "streams": 100_000 * b"fLaC\0\0\0\x22",
        "tags": 300_000 * TAG,
        "zeros": bytes(8_000_000),
    }


@pytest.mark.parametrize("name", list(hostile()))
def test_a_file_made_to_be_walked_for_ever_is_not(name: str, tmp_path: Path) -> None:
    path = tmp_path / "clip"
    path.write_bytes(hostile()[name])
    start = time.process_time()
    for attempt in (lambda: reader.read(path, CONFIG), lambda: list(open_all(path))):
        with suppress(AudioError):
            attempt()
    assert time.process_time() - start < 10


def open_all(path: Path) -> list[np.ndarray]:
    with open_blocks(path, SR, CONFIG) as blocks:
        return list(blocks)
