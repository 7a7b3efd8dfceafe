"""From a file to samples: what is read, what is refused, and why."""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from conftest import harmonic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechemo_cli.audio.reader import Recording, read
from speechemo_cli.audio.samples import SILENCE_PEAK, resample
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError, ExitCode

CONFIG = AudioConfig()
RATES = [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 192000]
WriteClip = Callable[..., Path]


def encoded(y: np.ndarray, sr: int, container: str = "WAV", subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, y, sr, format=container, subtype=subtype)
    return buffer.getvalue()


def saved(folder: Path, content: bytes, name: str = "clip.wav") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


# --- what is read


def test_samples_rate_hash_and_duration_are_those_of_the_file(write_clip: WriteClip) -> None:
    path = write_clip(seconds=1.5, sr=16000)
    before = path.stat()
    recording = read(path, CONFIG)
    expected, sr = librosa.load(path, sr=None)
    np.testing.assert_array_equal(recording.y, expected)
    assert recording.sr == sr == 16000
    assert recording.y.dtype == np.float32
    assert recording.duration_s == 1.5
    assert recording.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert recording.warnings == ()
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("subtype", "step"),
    [
        ("PCM_U8", 1 / 128),
        ("PCM_16", 1 / 32768),
        ("PCM_24", 1e-6),
        ("PCM_32", 1e-7),
        ("FLOAT", 0),
        ("DOUBLE", 0),
    ],
)
def test_every_linear_subtype_gives_the_same_samples_to_its_own_step(
    subtype: str, step: float, write_clip: WriteClip
) -> None:
    y = harmonic(1.0, 16000)
    recording = read(write_clip(y=y, subtype=subtype), CONFIG)
    assert np.abs(recording.y - y).max() <= step


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW"])
def test_logarithmic_subtypes_give_the_samples_to_a_few_per_cent(subtype: str, write_clip: WriteClip) -> None:
    y = harmonic(1.0, 16000)
    got = read(write_clip(y=y, subtype=subtype), CONFIG).y
    # G.711 keeps at least 36 dB between a signal of this level and the noise of its steps.
    assert np.mean(y**2) / np.mean((got - y) ** 2) > 10**3.6


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAVEX", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("AU", "PCM_16"),
        ("W64", "PCM_16"),
    ],
)
def test_lossless_containers_agree_and_the_name_does_not_matter(
    container: str, subtype: str, tmp_path: Path
) -> None:
    y = harmonic(0.5, 16000)
    expected = np.round(y * 32768) / 32768
    for name in ("clip.wav", "clip.mp3", "clip"):
        recording = read(saved(tmp_path, encoded(y, 16000, container, subtype), name), CONFIG)
        assert np.abs(recording.y - expected).max() <= 1 / 32768
        assert recording.warnings == ()


@pytest.mark.parametrize(
    ("container", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]
)
def test_lossy_containers_give_the_sound_without_a_warning(
    container: str, subtype: str, tmp_path: Path
) -> None:
    y = harmonic(1.0, 16000)
    recording = read(saved(tmp_path, encoded(y, 16000, container, subtype)), CONFIG)
    assert recording.duration_s == pytest.approx(1.0, abs=0.1)
    assert recording.warnings == ()
    n = min(len(y), len(recording.y))
    ours = np.abs(np.fft.rfft(recording.y[:n]))
    assert np.argmax(ours) * recording.sr / n == pytest.approx(140.0, abs=2)


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_channels_are_averaged_as_librosa_does(channels: int, write_clip: WriteClip) -> None:
    y = np.stack([harmonic(0.5, 16000, f0=100 + 40 * i) for i in range(channels)], axis=1)
    path = write_clip(y=y, subtype="FLOAT")
    got = read(path, CONFIG).y
    assert got.shape == (8000,)
    np.testing.assert_allclose(got, y.astype(np.float64).mean(axis=1), atol=1e-7)
    np.testing.assert_allclose(got, librosa.load(path, sr=None, mono=True)[0], atol=1e-7)


@pytest.mark.parametrize("sr", RATES)
def test_any_rate_gives_the_same_tone(sr: int, write_clip: WriteClip) -> None:
    t = np.arange(sr // 2) / sr
    recording = read(write_clip(y=0.5 * np.sin(2 * np.pi * 440 * t), sr=sr, subtype="FLOAT"), CONFIG)
    assert (recording.sr, recording.duration_s) == (sr, pytest.approx(0.5, abs=1 / sr))
    for target in (16000, 22050):
        y = resample(recording.y, sr, target)
        inside = slice(target // 20, -target // 20)  # the filter rings at the ends
        analytic = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(y)) / target)
        np.testing.assert_allclose(y[inside], analytic[inside], atol=2e-3)


@pytest.mark.parametrize("target", [8000, 16000, 22050])
@pytest.mark.parametrize("sr", RATES)
def test_resampling_is_that_of_librosa_load(
    sr: int, target: int, write_clip: WriteClip, rng: np.random.Generator
) -> None:
    # A length that divides by nothing, so that the rounding of the number of samples shows.
    y = (0.1 * rng.standard_normal((round(0.25 * sr) + 7, 2))).astype(np.float32)
    path = write_clip(y=y, sr=sr)
    expected, _ = librosa.load(path, sr=target)
    got = resample(read(path, CONFIG).y, sr, target)
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_resampling_to_the_same_rate_changes_nothing() -> None:
    y = harmonic(0.3, 16000)
    np.testing.assert_array_equal(resample(y, 16000, 16000), y)


# --- what is refused


def check_refused(path: str | Path, reason: str, config: AudioConfig = CONFIG) -> None:
    with pytest.raises(AudioError, match=reason) as caught:
        read(path, config)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == ExitCode.SOME_FAILED


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "^empty file$"),
        (b"\0", "not audio that can be read"),
        (
            b"just some text, whatever its name says\n" * 100,
            r"^not audio that can be read \(it is text\)$",
        ),
        (bytes(5000), "not audio that can be read"),
        (b"RIFF", "not audio that can be read"),
        (encoded(harmonic(1, 16000), 16000)[:12], "not audio that can be read"),
        (encoded(harmonic(1, 16000), 16000)[:30], "not audio that can be read"),
        (encoded(harmonic(1, 16000), 16000)[:44], "^no samples$"),
        (encoded(np.zeros(0), 16000), "^no samples$"),
        (encoded(np.zeros((0, 2)), 16000), "^no samples$"),
        (encoded(harmonic(1, 16000), 16000, "FLAC")[:4], "not audio that can be read"),
    ],
    ids=[
        "empty",
        "zero-byte",
        "text",
        "zeros",
        "magic",
        "no-fmt",
        "cut-fmt",
        "header-only",
        "no-samples",
        "no-pairs",
        "flac-magic",
    ],
)
def test_content_that_is_no_clip_is_refused_with_the_reason(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    check_refused(saved(tmp_path, content), reason)


def test_a_format_block_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    content = bytearray(encoded(harmonic(1, 16000), 16000))
    content[22:24] = struct.pack("<H", 0)  # no channels
    check_refused(saved(tmp_path, bytes(content)), "not audio that can be read")


@pytest.mark.parametrize(("n", "shown"), [(1, "0.000 s"), (800, "0.050 s"), (3199, "0.1999 s")])
def test_a_clip_that_is_too_short_says_how_short(n: int, shown: str, write_clip: WriteClip) -> None:
    path = write_clip(y=harmonic(1, 16000)[4000 : 4000 + n])
    check_refused(path, f"^{shown} is shorter than 0.2 s")


def test_a_clip_of_exactly_the_shortest_duration_is_read(write_clip: WriteClip) -> None:
    assert read(write_clip(y=harmonic(0.2, 16000)), CONFIG).duration_s == 0.2


def test_a_clip_that_is_too_long_is_refused_and_not_cut(write_clip: WriteClip) -> None:
    config = AudioConfig(max_duration_s=2.0)
    check_refused(write_clip(seconds=3.0), r"^3 s is longer than 2 s\. .*audio\.max_duration_s", config)
    check_refused(write_clip(y=harmonic(2.0001, 16000)), "is longer than 2 s", config)
    assert read(write_clip(seconds=2.0), config).duration_s == 2.0
    check_refused(write_clip("long.flac", y=np.zeros(601 * 8000), sr=8000), "^601 s is longer than 600 s")


@pytest.mark.parametrize("dc", [0.0, 0.5, -0.9])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_digital_silence_and_a_constant_are_silent(dc: float, subtype: str, write_clip: WriteClip) -> None:
    check_refused(write_clip(y=np.full(16000, dc), subtype=subtype), "^silent")


@pytest.mark.parametrize("dc", [0.0, 0.5])
def test_silence_begins_below_its_threshold_whatever_the_offset(dc: float, write_clip: WriteClip) -> None:
    wave = np.sin(2 * np.pi * 100 * np.arange(16000) / 16000)
    check_refused(write_clip(y=dc + 0.9 * SILENCE_PEAK * wave, subtype="FLOAT"), "^silent")
    assert read(write_clip(y=dc + 1.1 * SILENCE_PEAK * wave, subtype="FLOAT"), CONFIG).duration_s == 1.0


def test_channels_that_cancel_are_silent(write_clip: WriteClip) -> None:
    y = harmonic(1, 16000)
    check_refused(write_clip(y=np.stack([y, -y], axis=1), subtype="FLOAT"), "^silent")


@pytest.mark.parametrize(("bad", "reason"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_samples_that_are_not_finite_are_refused_with_the_place(
    bad: float, reason: str, subtype: str, write_clip: WriteClip
) -> None:
    y = harmonic(1, 16000)
    y[4000] = bad
    y[9000] = np.nan
    check_refused(write_clip(y=y, subtype=subtype), f"^contains {reason} at 0.250 s$")


def test_what_is_not_there_is_no_such_file(tmp_path: Path) -> None:
    check_refused(tmp_path / "gone.wav", "^no such file$")
    check_refused("", "^no such file$")
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "gone.wav")
    check_refused(tmp_path / "dangling.wav", "^no such file$")


def test_a_folder_is_no_clip(tmp_path: Path) -> None:
    (tmp_path / "clip.wav").mkdir()
    check_refused(tmp_path / "clip.wav", "^a folder, not a clip$")


def test_a_path_that_no_file_can_have_is_refused(write_clip: WriteClip) -> None:
    check_refused("a\0b.wav", "^not a possible file name$")
    check_refused("x" * 5000, "^file name too long$")
    check_refused(write_clip() / "below.wav", "^not a directory$")


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    check_refused(tmp_path / "loop.wav", "symbolic links")


def test_a_device_is_no_clip() -> None:
    check_refused(os.devnull, "^not a regular file$")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs")
def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    fifo = tmp_path / "clip.wav"
    os.mkfifo(fifo)
    caught: list[Exception] = []

    def attempt() -> None:
        try:
            read(fifo, CONFIG)
        except Exception as error:
            caught.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(20)
    assert [str(error) for error in caught] == ["not a regular file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_clip_that_may_not_be_read_says_so(write_clip: WriteClip) -> None:
    path = write_clip()
    path.chmod(0)
    check_refused(path, "^permission denied$")


@pytest.mark.parametrize("name", ["a b.wav", "-rf.wav", "[bold]x[/bold].wav", "new\nline.wav", "ünï.wav"])
def test_odd_names_are_read(name: str, write_clip: WriteClip) -> None:
    assert read(write_clip(name), CONFIG).duration_s == 1.0


def test_a_name_that_is_no_utf8_is_read(write_clip: WriteClip, tmp_path: Path) -> None:
    odd = write_clip().rename(tmp_path / os.fsdecode(b"caf\xe9.wav"))
    assert read(odd, CONFIG).duration_s == 1.0


# --- what is damaged


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_cut_wav_file_gives_what_it_holds_with_a_warning(
    subtype: str, channels: int, tmp_path: Path
) -> None:
    y = np.stack([harmonic(1, 16000)] * channels, axis=1)
    content = encoded(y, 16000, "WAV", subtype)
    header = len(content) - len(encoded(y, 16000, "RAW", subtype))
    cut = content[: header + (len(content) - header) // 2]
    whole, half = (read(saved(tmp_path, part), CONFIG) for part in (content, cut))
    assert whole.warnings == ()
    assert half.warnings == ("truncated: the header promises 1.00 s, the file holds 0.50 s",)
    np.testing.assert_array_equal(half.y, whole.y[:8000])
    assert half.sha256 != whole.sha256


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


FMT = (b"fmt ", struct.pack("<HHIIHH", 1, 1, 16000, 32000, 2, 16))
PCM = (harmonic(1, 16000) * 32767).astype("<i2").tobytes()


@pytest.mark.parametrize("before", [(), ((b"LIST", b"INFOx"),), ((b"junk", bytes(1001)), (b"bext", b"ab"))])
def test_chunks_around_the_samples_do_not_hide_a_cut(
    before: tuple[tuple[bytes, bytes], ...], tmp_path: Path
) -> None:
    whole = riff(FMT, *before, (b"data", PCM), (b"id3 ", b"tag"))
    assert read(saved(tmp_path, whole), CONFIG).warnings == ()
    cut = riff(FMT, *before, (b"data", PCM))[:-16000]
    assert read(saved(tmp_path, cut), CONFIG).warnings == (
        "truncated: the header promises 1.00 s, the file holds 0.50 s",
    )


def with_data_size(size: int) -> bytes:
    content = bytearray(riff(FMT, (b"data", PCM)))
    content[40:44] = struct.pack("<I", size)
    return bytes(content)


def test_a_header_that_promises_four_gigabytes_is_warned_about(tmp_path: Path) -> None:
    recording = read(saved(tmp_path, with_data_size(4_000_000_000)), CONFIG)
    assert recording.duration_s == 1.0
    assert [warning.split(":")[0] for warning in recording.warnings] == ["truncated"]


def test_a_size_that_a_streaming_program_left_open_is_no_cut(tmp_path: Path) -> None:
    recording = read(saved(tmp_path, with_data_size(0xFFFFFFFF)), CONFIG)
    assert recording.duration_s == 1.0
    assert recording.warnings == ()


def samples_or_reason(path: Path) -> Recording | None:
    """Read; whatever the content is, there are only these two ways out."""
    reason = None
    try:
        recording = read(path, CONFIG)
    except AudioError as error:
        reason = error.message
    if reason is not None:
        assert reason.isprintable()
        assert reason
        return None
    assert recording.y.dtype == np.float32
    assert recording.y.ndim == 1
    assert np.isfinite(recording.y).all()
    assert CONFIG.min_duration_s <= recording.duration_s <= CONFIG.max_duration_s
    return recording


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("AIFF", "PCM_16"),
        ("CAF", "PCM_16"),
        ("WAV", "IMA_ADPCM"),
    ],
)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_any_cut_file_gives_samples_or_an_audio_error(
    container: str, subtype: str, share: float, tmp_path: Path
) -> None:
    content = encoded(harmonic(1, 16000), 16000, container, subtype)
    whole = read(saved(tmp_path, content), CONFIG)
    recording = samples_or_reason(saved(tmp_path, content[: int(share * len(content))]))
    assert recording is None or len(recording.y) <= len(whole.y)


fuzz = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_WAV = encoded(harmonic(0.3, 16000), 16000)
_FLAC = encoded(harmonic(0.3, 16000), 16000, "FLAC")


@fuzz
@given(
    magic=st.sampled_from(
        [b"", b"RIFF", b"RIFF\0\1\0\0WAVEfmt ", b"fLaC", b"OggS", b"FORM", b"ID3", b"\xff\xfb", b".snd"]
    ),
    noise=st.binary(max_size=300),
)
def test_random_bytes_give_samples_or_an_audio_error(tmp_path: Path, magic: bytes, noise: bytes) -> None:
    samples_or_reason(saved(tmp_path, magic + noise))


@fuzz
@given(changes=st.dictionaries(st.integers(0, 47), st.integers(0, 255), min_size=1, max_size=6))
def test_a_damaged_wav_header_gives_samples_or_an_audio_error(
    tmp_path: Path, changes: dict[int, int]
) -> None:
    content = bytearray(_WAV)
    for at, byte in changes.items():
        content[at] = byte
    samples_or_reason(saved(tmp_path, bytes(content)))


@fuzz
@given(
    field=st.sampled_from(
        [
            (4, "<I"),
            (16, "<I"),
            (20, "<H"),
            (22, "<H"),
            (24, "<I"),
            (28, "<I"),
            (32, "<H"),
            (34, "<H"),
            (40, "<I"),
        ]
    ),
    value=st.sampled_from(
        [0, 1, 2, 3, 6, 7, 8, 17, 255, 0x7FFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
    ),
)
def test_an_extreme_field_in_a_wav_header_gives_samples_or_an_audio_error(
    tmp_path: Path, field: tuple[int, str], value: int
) -> None:
    at, kind = field
    packed = struct.pack(kind, value % 2 ** (8 * struct.calcsize(kind)))
    samples_or_reason(saved(tmp_path, _WAV[:at] + packed + _WAV[at + len(packed) :]))


@fuzz
@given(
    changes=st.dictionaries(st.integers(0, len(_FLAC) - 1), st.integers(0, 255), min_size=1, max_size=6),
    keep=st.integers(1, len(_FLAC)),
)
def test_a_damaged_flac_file_gives_samples_or_an_audio_error(
    tmp_path: Path, changes: dict[int, int], keep: int
) -> None:
    content = bytearray(_FLAC)
    for at, byte in changes.items():
        content[at] = byte
    samples_or_reason(saved(tmp_path, bytes(content[:keep])))


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "IMA_ADPCM"),
        ("AIFF", "PCM_16"),
        ("AU", "PCM_16"),
        ("W64", "PCM_16"),
        ("RF64", "PCM_16"),
    ],
)
def test_every_container_that_was_cut_is_warned_about(tmp_path: Path, container: str, subtype: str) -> None:
    path = tmp_path / "cut"
    soundfile.write(path, harmonic(1.0, 16000), 16000, format=container, subtype=subtype)
    whole = read(path, CONFIG)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    cut = read(path, CONFIG)

    assert whole.warnings == ()
    assert cut.duration_s == pytest.approx(0.5, abs=0.02)
    if subtype == "IMA_ADPCM":
        assert re.fullmatch(
            r"truncated: the file holds \d+ of \d+ bytes of sound, after .* s", cut.warnings[0]
        )
    else:
        assert cut.warnings[0].startswith("truncated: the header promises 1.0")


def test_a_codec_that_cannot_seek_is_read(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "gsm.wav", harmonic(1.0, 8000), 8000, subtype="GSM610")

    assert read(tmp_path / "gsm.wav", CONFIG).duration_s == pytest.approx(1.0, abs=0.05)


def test_samples_that_are_no_sound_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", 1e25 * harmonic(1.0, 16000), 16000, subtype="FLOAT")

    with pytest.raises(AudioError, match=r"samples of up to .*e\+2\d, expected 1 at full scale"):
        read(tmp_path / "loud.wav", CONFIG)


# --- the hash of the samples


def sixteen_bit(rng: np.random.Generator, channels: int, offset: float = 0.0) -> np.ndarray:
    y = 0.1 * rng.standard_normal((8000, channels)) + offset
    return np.round(32767 * y.clip(-1, 1)).astype(np.int16)


@pytest.mark.parametrize(
    ("name", "subtype"),
    [
        ("copy.flac", "PCM_16"),
        ("copy.flac", "PCM_24"),
        ("copy.aiff", "PCM_16"),
        ("copy.wav", "PCM_24"),
        ("copy.wav", "PCM_32"),
        ("copy.wav", "FLOAT"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("offset", [0.0, 0.05])
def test_samples_sha256_is_the_same_in_every_lossless_container(
    name: str, subtype: str, channels: int, offset: float, rng: np.random.Generator
) -> None:
    y = sixteen_bit(rng, channels, offset)
    soundfile.write("original.wav", y, 16000, subtype="PCM_16")
    samples, sr = soundfile.read("original.wav", dtype="float32")
    soundfile.write(name, samples, sr, subtype=subtype)
    original, copy = (read(path, AudioConfig()) for path in ("original.wav", name))
    assert bool(original.warnings) == bool(offset)
    assert copy.sha256 != original.sha256
    assert copy.samples_sha256 == original.samples_sha256


def test_samples_sha256_tells_other_samples_and_another_rate_apart(rng: np.random.Generator) -> None:
    y = sixteen_bit(rng, 1)[:, 0]
    changed = y.copy()
    changed[4000] += 1
    hashes = set()
    for samples, sr in ((y, 16000), (changed, 16000), (y[:-1], 16000), (y, 16001)):
        soundfile.write("clip.wav", samples, sr, subtype="PCM_16")
        hashes.add(read("clip.wav", AudioConfig()).samples_sha256)
    assert len(hashes) == 4
