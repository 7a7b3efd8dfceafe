"""What FFmpeg decodes: the samples that were encoded, of the track with speech, and nothing endless."""

from __future__ import annotations

import io
import re
import tracemalloc

import av
import numpy as np
import pytest
import soxr
from audio_cases import SR, in_16_bits, mp3, muxed, voice

from speechemo_cli.audio import reader
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError

CONFIG = AudioConfig()


def decoded(content: bytes, config: AudioConfig = CONFIG) -> tuple[np.ndarray, int, tuple[str, ...]]:
    """Samples of each channel [shape=(n, channels)], their rate, and the warnings."""
    channels = reader.read_channels("clip", config, "each", content)
    y = np.stack([channel.decoded for channel in channels], axis=1)
    return y, channels[0].sr, channels[0].warnings


def plainly_decoded(content: bytes) -> np.ndarray:
    """What FFmpeg itself makes of the first sound track [shape=(n, channels)]."""
    with av.open(io.BytesIO(content)) as file:
        resampler = av.AudioResampler("flt")
        frames = [out for frame in file.decode(audio=0) for out in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray().reshape(-1, frame.layout.nb_channels) for frame in frames])


def voices(channels: int, sr: int, seconds: float = 1.2) -> np.ndarray:
    return np.stack([voice(seconds, sr, 120.0 + 10.0 * i) for i in range(channels)], axis=1)


def match(y: np.ndarray, expected: np.ndarray) -> tuple[int, float]:
    """By how many samples `y` is later, and how well it correlates then."""
    n = 2 ** (len(y) + len(expected)).bit_length()
    products = np.fft.irfft(np.fft.rfft(y, n) * np.conj(np.fft.rfft(expected, n)), n)
    later = int(products.argmax())
    later -= n if later > len(y) else 0
    y, expected = y[max(later, 0) :], expected[max(-later, 0) :]
    held = min(len(y), len(expected))
    return later, float(np.corrcoef(y[:held], expected[:held])[0, 1])


# --- the samples


@pytest.mark.parametrize(
    ("codec", "containers"),
    [
        ("alac", ("ipod", "mov", "caf", "matroska")),
        ("flac", ("flac", "ogg", "mp4", "matroska")),
        ("wavpack", ("wv", "matroska")),
        ("tta", ("tta", "matroska")),
        ("pcm_s16le", ("wav", "w64", "mov", "matroska", "avi", "asf")),
        ("pcm_s16be", ("mov", "caf", "aiff")),
        *(("pcm_s24le", ("mov",)), ("pcm_f32le", ("mov",)), ("pcm_s32le", ("matroska",))),
    ],
)
@pytest.mark.parametrize(("channels", "sr"), [(1, 8000), (2, 44100), (6, 48000)])
def test_lossless_codecs_give_the_samples_to_the_last_bit(
    codec: str, containers: tuple[str, ...], channels: int, sr: int
) -> None:
    y = voices(channels, sr, 0.5)
    for container in containers:
        got, got_sr, warnings = decoded(muxed(y, sr=sr, codec=codec, container=container))

        assert (got_sr, warnings) == (sr, ()), container
        np.testing.assert_array_equal(got, in_16_bits(y) / np.float32(2**15))


# Codec, container, rates with their numbers of channels, and by how many samples the sound may be later: what
# the encoder needs to begin, where the container has no place to say so. None for codecs that keep no more of
# the waveform than a voice needs.
LOSSY: list[tuple[str, str, list[tuple[int, int]], int | None]] = [
    ("aac", "ipod", [(1, 8000), (1, 16000), (2, 44100), (6, 48000), (1, 96000)], 0),
    *(("aac", container, [(1, 16000), (2, 44100)], 1024) for container in ("adts", "mpegts", "flv")),
    *(("aac", container, [(1, 8000), (6, 48000)], 0) for container in ("matroska", "mov")),
    *(("libopus", container, [(1, 8000), (1, 16000), (6, 48000)], 0) for container in ("ogg", "webm")),
    *(("libmp3lame", container, [(1, 8000), (2, 44100)], 0) for container in ("mp3", "matroska")),
    *(("libmp3lame", container, [(1, 16000), (2, 44100)], 1105) for container in ("avi", "wav")),
    *(("mp2", container, [(1, 16000), (2, 44100)], 481) for container in ("mp2", "mpeg")),
    *((codec, codec, [(2, 44100), (6, 48000)], 256) for codec in ("ac3", "eac3")),
    *(("ac3", "mov", [(2, 44100)], 0), ("g722", "wav", [(1, 16000)], 22), ("g726", "wav", [(1, 8000)], 0)),
    *((f"adpcm_{name}", "wav", [(1, 8000), (2, 44100)], 0) for name in ("ima_wav", "ms", "yamaha")),
    *(("adpcm_ima_qt", container, [(1, 8000), (2, 44100)], 0) for container in ("mov", "aiff")),
    *(("pcm_alaw", "mov", [(1, 8000), (2, 44100)], 0), ("pcm_mulaw", "caf", [(1, 8000)], 0)),
    *(("libopencore_amrnb", container, [(1, 8000)], None) for container in ("amr", "3gp")),
    *(("wmav2", "asf", [(1, 16000)], None), ("g723_1", "wav", [(1, 8000)], None)),
    *(("nellymoser", "flv", [(1, 8000)], None), ("real_144", "rm", [(1, 8000)], None)),
]


@pytest.mark.parametrize(("codec", "container", "forms", "later"), LOSSY)
def test_lossy_codecs_give_the_samples_of_ffmpeg_and_the_sound_in_its_place(
    codec: str, container: str, forms: list[tuple[int, int]], later: int | None
) -> None:
    for channels, sr in forms:
        y = voices(channels, sr)
        content = muxed(y, sr=sr, codec=codec, container=container)

        got, got_sr, warnings = decoded(content)

        assert warnings == ()
        if (codec, container) != ("pcm_mulaw", "caf"):  # libsndfile's, which has steps of its own
            np.testing.assert_array_equal(got, plainly_decoded(content))
        assert len(got) / got_sr == pytest.approx(1.2, abs=0.01 + 3000 / sr)
        for i in () if later is None else (0, channels - 1):
            back = soxr.resample(got[:, i], got_sr, sr) if got_sr != sr else got[:, i]
            found, alike = match(back, y[:, i])
            assert abs(found - later) <= 2
            assert alike > 0.97


@pytest.mark.parametrize("kind", [b"wide", b"ftyp"])
def test_mov_is_known_by_either_beginning(kind: bytes) -> None:
    content = muxed(voice(), codec="aac", container="mov")

    np.testing.assert_array_equal(decoded(content[:4] + kind + content[8:])[0], decoded(content)[0])


@pytest.mark.parametrize("pause", ["no data", "damaged"])
def test_amr_keeps_the_length_of_its_pauses(pause: str) -> None:
    content = muxed(voice(4.0, 8000), sr=8000, codec="libopencore_amrnb", container="amr")
    frames = [content[at : at + 13] for at in range(6, len(content), 13)]
    empty = {"no data": b"\x7c", "damaged": bytes([frames[0][0] & 0xFB]) + frames[0][1:]}[pause]

    y, _, warnings = decoded(content[:6] + b"".join(empty if i % 5 == 1 else x for i, x in enumerate(frames)))

    assert (len(y), warnings) == (160 * len(frames), ())


# --- sound tracks

TONE = 0.2 * np.sin(2 * np.pi * 200 * np.arange(3 * SR) / SR)
SPEECH = np.concatenate([voice(0.8), np.zeros(SR // 2), voice(0.9), np.zeros(SR // 2), voice(0.3)])


@pytest.mark.parametrize(
    ("container", "other"), [("matroska", TONE), ("ipod", 0 * TONE)], ids=["tone", "silence"]
)
def test_track_with_speech_is_taken_and_the_other_by_its_number(container: str, other: np.ndarray) -> None:
    content = muxed(other, SPEECH, codec="alac", container=container)

    y, _, warnings = decoded(content)
    first, _, none = decoded(content, AudioConfig(track=1))

    np.testing.assert_array_equal(y[:, 0], in_16_bits(SPEECH) / np.float32(2**15))
    assert warnings == ("not all read: 2 sound tracks, this is number 2; --track takes another",)
    np.testing.assert_array_equal(first[:, 0], in_16_bits(other) / np.float32(2**15))
    assert none == ()
    with pytest.raises(AudioError, match=r"^has 2 sound tracks, no track 3$"):
        decoded(content, AudioConfig(track=3))


# --- what is cut, damaged or changes


@pytest.mark.parametrize("rate", [16000, 22050])
def test_adts_that_changes_its_rate_says_what_is_not_used(rate: int) -> None:
    first, second = (muxed(voice(1.0, sr), sr=sr, codec="aac", container="adts") for sr in (24000, rate))

    y, sr, warnings = decoded(first + second)

    assert len(y) / sr == pytest.approx(1.0, abs=0.1)
    assert warnings == (
        f"not all read: after {len(y) / sr:.2f} s a recording of 1 channel at {rate} Hz follows",
    )


@pytest.mark.parametrize("container", ["ipod", "mov", "matroska", "webm", "tta", "mp3"])
def test_cut_files_give_what_they_hold_with_a_warning(container: str) -> None:
    codec = {"webm": "libopus", "tta": "tta", "mp3": "libmp3lame"}.get(container, "aac")
    options = {"movflags": "faststart"} if container in ("ipod", "mov") else None
    content = muxed(voice(6.0), codec=codec, container=container, options=options)
    whole, sr, warnings = decoded(content)
    assert warnings == ()

    y, _, warnings = decoded(content[: len(content) // 2])

    assert 2 * sr < len(y) < 4 * sr
    np.testing.assert_array_equal(y[: 2 * sr], whole[: 2 * sr])
    expected = rf"truncated: the header promises 6\.0\d s, the file holds {len(y) / sr:.2f} s"
    assert re.fullmatch(expected, warnings[-1])
    with pytest.raises(AudioError, match=expected):
        reader.read_channels("clip", AudioConfig(strict=True), content=content[: len(content) // 2])


@pytest.mark.parametrize("container", ["ipod", "webm", "adts"])
def test_holes_cost_little_or_give_a_warning(container: str, rng: np.random.Generator) -> None:
    content = muxed(voice(6.0), codec="libopus" if container == "webm" else "aac", container=container)
    whole, sr, _ = decoded(content)
    middle = len(content) // 2

    y, _, warnings = decoded(content[:middle] + rng.bytes(1000) + content[middle + 1000 :])

    np.testing.assert_array_equal(y[: 2 * sr], whole[: 2 * sr])
    if container == "webm":  # goes on with the next cluster, which are some seconds long
        assert warnings[-1].startswith("truncated: the header promises 6.0")
    else:
        assert 0.8 * len(whole) < len(y) <= len(whole)
        assert all(re.match(r"damaged: \d+ parts? of", warning) for warning in warnings)


@pytest.mark.parametrize(
    "before",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\n\r\n",
        b"APETAGEX\xd0\x07\0\0" + (100).to_bytes(4, "little") + bytes(16) + b"x" * 100,
        mp3(voice())[700:900],
    ],
    ids=["HTTP", "APE", "part-of-a-frame"],
)
def test_mp3_begins_with_its_first_whole_frame(before: bytes) -> None:
    content = mp3(voice(3.0))

    found, alike = match(decoded(before + content)[0][:, 0], voice(3.0))

    assert 0 <= found < 2400
    assert alike > 0.98


# --- bombs


@pytest.mark.parametrize(
    ("codec", "container"), [("tta", "tta"), ("alac", "ipod"), ("flac", "ogg"), ("aac", "adts")]
)
def test_packed_silence_of_many_minutes_is_refused_in_little_memory(codec: str, container: str) -> None:
    content = muxed(np.zeros(605 * 8000, np.float32), sr=8000, codec=codec, container=container)
    tracemalloc.start()
    try:
        with pytest.raises(AudioError, match=r"^60\d s is longer than 600 s\. Cut it"):
            decoded(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    # Where the header tells the length, no sample is made.
    assert peak < (64 if container == "adts" else 2) * 2**20
