"""All samples of a file are read, whatever its header counts, and nothing that stands around them."""

from __future__ import annotations

import io
import re
import struct

import numpy as np
import pytest
import soundfile
from audio_cases import (
    SR,
    TAG,
    by_libsndfile,
    check_read,
    chunk,
    encoded,
    read_both,
    sound_sizes,
    voice,
)

from speechemo_cli.audio import reader
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError

Y = voice(2.0)
SIZED = ["WAV", "RIFX", "RF64", "W64", "AIFF", "AU", "CAF"]


def container(name: str, y: np.ndarray = Y) -> bytes:
    if name != "RIFX":
        return encoded(y, container=name)
    buffer = io.BytesIO()
    soundfile.write(buffer, y, SR, format="WAV", subtype="PCM_16", endian="BIG")
    return buffer.getvalue()


# --- what a file says of itself in words


@pytest.mark.parametrize("at", [36, None], ids=["before", "after"])
@pytest.mark.parametrize("number", [b"9" * 400, b"64000", b"0", b"-1"])
def test_sizes_are_not_taken_from_a_comment(number: bytes, at: int | None) -> None:
    plain = encoded(Y)
    for name in (b"data", b"SSND", b"riff"):
        comment = b"\n%b : %b (should be 1)\n" % (name, number)
        info = chunk(b"LIST", b"INFO" + chunk(b"ICMT", comment + bytes(len(comment) % 2)))
        content = b"WAVE" + plain[12:at] + info + (plain[at:] if at else b"")

        check_read(chunk(b"RIFF", content), by_libsndfile(plain))


# --- sizes that say less than there is, or nothing


@pytest.mark.parametrize("name", SIZED)
@pytest.mark.parametrize("share", [0.0001, 0.9])
def test_sizes_that_are_too_small_cost_no_samples_and_give_a_warning(name: str, share: float) -> None:
    whole = container(name)
    size = round(share * len(Y)) * 2

    told = f"stale header: it promises {size / 2 / SR:.2f} s, the file holds 2.00 s, all of which is read"
    check_read(sound_sizes(whole, size), by_libsndfile(whole), told)
    with pytest.raises(AudioError, match=r"^stale header"):
        reader.read("clip", AudioConfig(strict=True))


@pytest.mark.parametrize("name", SIZED)
@pytest.mark.parametrize("size", [0, -1])
def test_sizes_that_nobody_knew_mean_the_end_of_the_file(name: str, size: int) -> None:
    whole = container(name)

    check_read(sound_sizes(whole, size), by_libsndfile(whole))


@pytest.mark.parametrize("name", [*SIZED, "NIST"])
@pytest.mark.parametrize("share", [0.3, 0.75])
def test_sizes_that_are_too_large_give_a_warning_in_every_container(name: str, share: float) -> None:
    whole = container(name)
    lost = 2 * round((1 - share) * len(Y))

    y, warnings = read_both(whole[: len(whole) - lost])

    # Some containers end in chunks without sound.
    assert len(y) / len(Y) == pytest.approx(share, abs=0.01)
    np.testing.assert_array_equal(y, by_libsndfile(whole)[: len(y)])
    assert warnings == (f"truncated: the header promises 2.00 s, the file holds {len(y) / SR:.2f} s",)


def half_counted(wav: bytes) -> bytes:
    (size,) = struct.unpack_from("<I", wav, wav.index(b"data") + 4)
    return sound_sizes(wav, size // 2)


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM"])
def test_sizes_of_coded_samples_may_be_too_small(subtype: str) -> None:
    whole = encoded(Y, subtype=subtype)

    y, _ = read_both(half_counted(whole))

    # FFmpeg rounds the steps of IMA otherwise than libsndfile.
    np.testing.assert_allclose(y, by_libsndfile(whole)[: len(y)], atol=0.02)
    assert abs(len(y) - len(Y)) < 1024


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "FLOAT", "ULAW"])
def test_sizes_are_those_of_the_codec(subtype: str) -> None:
    whole = encoded(Y, subtype=subtype)

    y, warnings = read_both(half_counted(whole))

    np.testing.assert_allclose(y, by_libsndfile(whole), atol=1e-6)
    (warning,) = warnings
    assert re.fullmatch(r"stale header: it promises 1\.0\d s, the file holds 2\.\d\d s, .*", warning)


@pytest.mark.parametrize(
    "behind",
    [
        *(bytes(n) for n in (1, 100, 1000, 50_000, 3_000_000)),
        chunk(b"LIST", b"INFO" + b"x" * 1996),
        chunk(b"id3 ", TAG + b"x" * 580),
        TAG + b"x" * 2000,
        b"TAG" + b"x" * 125,
        np.random.default_rng(3).bytes(300),
        b"\xff" * 50_000,
        b"\xff\xd8\xff\xe0" + np.random.default_rng(3).bytes(5000),
        b"PK\3\4" + np.random.default_rng(3).bytes(5000),
        chunk(b"RIFF", b"AVI " + np.random.default_rng(3).bytes(4996)),
        b"<?xml version='1.0'?>\n" + b"<axml/>\n" * 200,
        b"iXML" + struct.pack("<I", 9000) + b"<x/>" * 500,
        b"\0" + chunk(b"iXML", b"<x/>" * 500),
        "Grüße aus dem Studio\n".encode() * 50,
        "Grüße aus dem Studio\n".encode("utf-16") * 50,
        b"\x1f\x8b\x08" + np.random.default_rng(3).bytes(5000),
    ],
    ids=[
        *("byte", "zeros", "sector", "cluster", "megabytes", "LIST", "id3", "ID3", "ID3v1", "remnant"),
        *("erased", "JPEG", "zip", "AVI", "text", "cut iXML", "shifted iXML", "UTF-8", "UTF-16", "gzip"),
    ],
)
def test_samples_end_before_what_is_none(behind: bytes) -> None:
    whole = encoded(Y)

    check_read(whole + behind, by_libsndfile(whole))


def test_samples_of_w64_end_before_the_next_chunk() -> None:
    whole = container("W64")
    name = b"levl" + bytes.fromhex("f3acd3118cd100c04f8edb8a")
    behind = name + struct.pack("<q", 24 + 40_000) + np.random.default_rng(3).bytes(40_000)

    check_read(whole + behind, by_libsndfile(whole))


def test_samples_go_on_behind_a_long_silence_that_is_not_counted() -> None:
    whole = encoded(np.concatenate([Y, np.zeros(40 * SR, np.float32), Y]))

    told = "stale header: it promises 2.00 s, the file holds 44.00 s, all of which is read"
    check_read(sound_sizes(whole, 2 * len(Y)), by_libsndfile(whole), told)


@pytest.mark.parametrize("padding", [b"", b"\0"])
def test_samples_of_an_odd_number_of_bytes_may_be_padded_or_not(padding: bytes) -> None:
    whole = encoded(Y[:-1], subtype="PCM_U8").removesuffix(b"\0")
    assert len(whole) == 44 + len(Y) - 1

    y, warnings = read_both(whole + padding + chunk(b"LIST", b"INFO" + b"x" * 1996))

    assert (len(y), warnings) == (len(Y) - 1, ())


def test_samples_of_bw64_are_read() -> None:
    whole = encoded(Y, container="RF64")

    check_read(b"BW64" + whole[4:], by_libsndfile(whole))


def test_samples_of_two_chunks_follow_one_another() -> None:
    whole = encoded(Y)
    again = whole[whole.index(b"data") :]

    check_read(whole + chunk(b"junk", b"ab") + again, np.tile(by_libsndfile(whole), 2))
