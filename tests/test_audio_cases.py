"""What strangers record: each clip is answered or refused with its reason, and never stops the others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_cases import (
    CASES,
    NAMES,
    NO_AUDIO,
    NO_FILES,
    SAMPLES,
    SR,
    Case,
    by_libsndfile,
    decoded,
    encoded,
    flac_promising,
    joined,
    muxed,
    voice,
    write_all,
)
from conftest import COMMAND
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechemo_cli.audio import reader
from speechemo_cli.audio.reader import open_blocks
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError
from speechemo_cli.files import display_name

# What fails in a callback from C has nobody to raise to, and numpy warns of infinities; both would be seen.
pytestmark = [
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("error::RuntimeWarning"),
]
CONFIG, STRICT = AudioConfig(), AudioConfig(strict=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case, in folders that a corpus is made of; rich takes [/x] for markup."""
    return write_all(tmp_path_factory.mktemp("cases") / "[" / "x]" / "angry")


def reason_of(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except AudioError as error:
        return str(error)
    return "none"


def check_warnings(found: tuple[str, ...], case: Case) -> None:
    assert len(found) == len(case.warned), found
    for warning, expected in zip(found, case.warned, strict=True):
        assert re.fullmatch(expected, warning)


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case.name)[1:-1])
def test_reader_gives_samples_or_the_reason(case: Case, folder: Path, capfd) -> None:
    path = folder / case.name
    if case.refused is not None:
        assert re.fullmatch(case.refused, reason_of(lambda: reader.read(path, CONFIG)))
    else:
        whole = reader.read(path, CONFIG)
        assert (whole.y.dtype, whole.y.ndim) == (np.float32, 1)
        check_warnings(whole.warnings, case)
    expected = case.refused or "; ".join(case.warned) + (r"\. .*" if case.warned else "none")
    assert re.fullmatch(expected, reason_of(lambda: reader.read(path, STRICT)))
    # In blocks a recording may be of any length, and silent; an offset is told, and not taken out.
    if not re.match(r"silent .*peak|\d+ s is longer|590 s|silent \.", case.refused or ""):
        reason = reason_of(lambda: joined(path, config=STRICT))
        assert re.match(case.refused or (case.warned[0].split(":")[0] if case.warned else "none$"), reason)
        if not (case.refused or case.warned):
            np.testing.assert_allclose(joined(path, whole.sr)[0], whole.y, atol=1e-6)
    assert capfd.readouterr().out == ""


def speechemo(*arguments: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *arguments], cwd=folder, capture_output=True, check=False)


def check_names_the_refused(stderr: bytes, cases: dict[str, Case]) -> None:
    """Each refused clip has one line of its own, with its whole reason; no library writes another."""
    lines = stderr.decode().splitlines()
    for path, case in cases.items():
        named = [line for line in lines if f"{display_name(path)}: " in line]
        if case.refused is not None:
            assert len(named) == 1, (path, named)
            assert re.search(f"{re.escape(display_name(path))}: {case.refused}$", named[0]), named[0]
    assert all(line.isprintable() for line in lines)
    assert all(line.startswith(("warning: ", "model: ")) for line in lines), lines


def test_predict_answers_for_all_others(folder: Path, tmp_path: Path) -> None:
    cases = {str(folder / case.name): case for case in CASES}

    done = speechemo("predict", str(folder), "--format", "jsonl", folder=tmp_path)

    assert done.returncode == 3, done.stderr
    records = {record["path"]: record for record in map(json.loads, done.stdout.splitlines())}
    assert records.keys() == cases.keys()
    for path, case in cases.items():
        record = records[path]
        if case.refused is not None:
            assert record["status"] == "error"
            assert re.fullmatch(case.refused, record["error"])
        else:
            assert record["status"] == "ok"
            assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-4)
            check_warnings(tuple(record["warnings"][: len(case.warned)]), case)
            for start in case.quality:
                assert any(warning.startswith(start) for warning in record["warnings"]), record["warnings"]
    check_names_the_refused(done.stderr, cases)


def test_extract_takes_all_others(tmp_path: Path) -> None:
    some = [*NAMES, *NO_FILES, *NO_AUDIO[::4], *SAMPLES[::4]]
    write_all(tmp_path / "data" / "angry", some)

    done = speechemo("extract", "data", "--features", "mfcc", "--format", "json", "--quiet", folder=tmp_path)

    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    refused = {f"data/angry/{case.name}": case for case in some if case.refused}
    assert {failure["path"] for failure in report["failed"]} == refused.keys()
    for failure in report["failed"]:
        assert re.fullmatch(refused[failure["path"]].refused, failure["error"]), failure
    assert report["clips"] == len(some)
    check_names_the_refused(done.stderr, refused)


# --- the limits


def peak_bytes(path: str | Path, config: AudioConfig = CONFIG) -> int:
    """Memory that reading takes at most, refused or not."""
    tracemalloc.start()
    try:
        reader.read(path, config)
    except AudioError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


@pytest.mark.parametrize("name", ["bomb.flac", "longer.flac", "3-hours.wav"])
def test_read_refuses_what_a_header_promises_before_memory_is_taken(name: str, folder: Path) -> None:
    assert peak_bytes(folder / name) < 2**21


def test_read_mixes_many_channels_as_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "PIECE", 2**17)
    frames, path = 30 * SR, tmp_path / "clip.flac"
    y = np.tile(np.round(voice(1.0) * 100).astype(np.int16), 30)
    soundfile.write(path, np.stack([y] * 8, axis=1), SR)

    np.testing.assert_array_equal(reader.read(path, CONFIG).y, y / np.float32(2**15))
    # The mean, and its parts before they are joined; all channels would be eight times as much.
    assert peak_bytes(path) - path.stat().st_size < 3 * 4 * frames


def test_read_refuses_a_file_too_large_to_be_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(encoded(voice()))
    monkeypatch.setattr(reader, "LARGEST_BYTES", 1000)

    with pytest.raises(AudioError, match=r"^\d+ bytes, expected \d+ at most$"):
        reader.read(path, CONFIG)


def test_read_channels_stops_a_stream_of_unknown_length_at_the_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = flac_promising(0, 1, SR)
    monkeypatch.setattr(reader, "PIECE", 400)

    assert len(decoded(content).y) == SR // 10
    with pytest.raises(AudioError, match=r"is longer than 0\.05 s"):
        decoded(content, AudioConfig(min_duration_s=0.04, max_duration_s=0.05))


# --- what is around a clip


@pytest.mark.parametrize("name", ["MP3.mp3", "tagged.mp3"])
def test_read_cares_for_nothing_in_the_working_folder(name: str, folder: Path, tmp_path: Path) -> None:
    expected = by_libsndfile((folder / name).read_bytes())
    # What a Mac leaves in a folder, and what nobody would: opening it would wait for ever.
    (tmp_path / ".AppleDouble").mkdir()
    os.mkfifo(tmp_path / "._")

    np.testing.assert_allclose(reader.read(folder / name, CONFIG).y, expected, atol=1e-6)
    np.testing.assert_allclose(joined(folder / name)[0], expected, atol=1e-5)


def test_read_hashes_what_it_decodes_though_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(encoded(voice()))
    whole = reader.read(path, CONFIG)
    read_bytes = reader.read_bytes

    def change_behind(*arguments):
        content = read_bytes(*arguments)
        path.unlink()
        path.write_bytes(encoded(voice(2.0)))
        return content

    monkeypatch.setattr(reader, "read_bytes", change_behind)
    again = reader.read(path, CONFIG)

    # The hash and the samples are those of one and the same content.
    assert again.sha256 == whole.sha256
    np.testing.assert_array_equal(again.y, whole.y)


# --- whatever the bytes are

ENCODED = {
    name: encoded(voice(0.4), SR, name, subtype)
    for name, subtype in (
        *(("WAV", "PCM_16"), ("AIFF", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")),
        *(("MP3", "MPEG_LAYER_III"), ("W64", "FLOAT"), ("CAF", "PCM_24"), ("AU", "ULAW"), ("NIST", "PCM_16")),
    )
} | {
    container: muxed(voice(0.4, 8000), sr=8000, codec=codec, container=container)
    for container, codec in (
        *(("ipod", "aac"), ("adts", "aac"), ("webm", "libopus"), ("amr", "libopencore_amrnb")),
        *(("tta", "tta"), ("caf", "alac"), ("asf", "pcm_s16le"), ("avi", "libmp3lame"), ("mpegts", "aac")),
    )
}
NUMBERS = st.sampled_from([0, 1, 2, 7, 17, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A file with some bytes changed, an extreme number in its header, a part lost or doubled, or cut."""
    content = bytearray(ENCODED[draw(st.sampled_from(sorted(ENCODED)))])
    for _ in range(draw(st.integers(0, 4))):
        content[draw(st.integers(0, min(len(content), 400) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        at, order = draw(st.integers(0, 100)), draw(st.sampled_from(["big", "little"]))
        content[at : at + 4] = draw(NUMBERS).to_bytes(4, order)
    if draw(st.booleans()):
        at, n = draw(st.integers(0, len(content))), draw(st.integers(0, 64))
        content[at : at + n] = draw(st.sampled_from([b"", content[at : at + n] * 2]))
    return bytes(content[: draw(st.none() | st.integers(1, len(content)))])


def check_samples_or_reason(content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """Read a file whole and in blocks; whatever is in it, there are these two ways out."""
    Path("clip").write_bytes(content)

    def whole() -> None:
        recording = reader.read("clip", CONFIG)
        assert np.isfinite(recording.y).all()
        assert CONFIG.min_duration_s <= recording.duration_s <= CONFIG.max_duration_s
        assert all(warning.isprintable() for warning in recording.warnings)

    def by_blocks() -> None:
        with open_blocks("clip", SR, CONFIG) as blocks:
            for block in blocks:
                assert np.isfinite(block).all()
                if blocks.duration_s > 30:
                    return

    for reason in (reason_of(whole), reason_of(by_blocks)):
        assert reason
        assert reason.isprintable()
    assert capfd.readouterr().out == ""


STARTS = st.sampled_from([b"", *(content[:16] for content in ENCODED.values())])
ANY = st.tuples(STARTS, st.binary(max_size=400)).map(b"".join)


@pytest.mark.parametrize(
    ("contents", "n"),
    [
        (ANY, 60),
        (mutations(), 200),
        pytest.param(ANY, 1500, marks=pytest.mark.slow),
        pytest.param(mutations(), 4000, marks=pytest.mark.slow),
    ],
    ids=["bytes", "damage", "many bytes", "much damage"],
)
def test_read_of_any_bytes_or_damage_gives_samples_or_a_reason(
    contents: st.SearchStrategy[bytes], n: int, capfd
) -> None:
    @settings(max_examples=n, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(contents)
    def check(content: bytes) -> None:
        check_samples_or_reason(content, capfd)

    check()
