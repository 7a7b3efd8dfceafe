"""What strangers record: each clip is heard or refused with its reason, and never stops the others."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_cases import CASES, SR, Case, encoded, flac_promising, voice, write_all
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from speechemo_cli.audio import reader
from speechemo_cli.audio import samples as audio_samples
from speechemo_cli.audio.blocks import open_blocks
from speechemo_cli.audio.containers import Part
from speechemo_cli.audio.decode import AudioStream
from speechemo_cli.cli.answers import WRITERS
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError
from speechemo_cli.files import display_name
from speechemo_cli.inference.predictor import Answer, Refusal
from speechemo_cli.inference.results import Style

# What fails in a callback from C has nobody to raise to, and numpy warns of infinities; both would be seen.
pytestmark = [
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("error::RuntimeWarning"),
]
CONFIG = AudioConfig()


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """Every case by its path, in folders that a corpus is made of."""
    return write_all(tmp_path_factory.mktemp("cases") / "[" / "x]" / "angry")  # rich takes [/x] for markup


def check_warnings(found: tuple[str, ...], case: Case) -> None:
    assert len(found) == len(case.warned), found
    for warning, expected in zip(found, case.warned, strict=True):
        assert re.fullmatch(expected, warning)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_clip_is_read_or_refused_with_its_reason(case: Case, cases: dict[str, Case], capfd) -> None:
    path = next(path for path, other in cases.items() if other is case)
    if case.refused is not None:
        with pytest.raises(AudioError) as caught:
            reader.read(path, CONFIG)
        assert re.fullmatch(case.refused, str(caught.value)), str(caught.value)
    else:
        recording = reader.read(path, CONFIG)
        assert recording.y.dtype == np.float32
        assert recording.y.ndim == 1
        check_warnings(recording.warnings, case)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.warned and not case.refused], ids=lambda case: case.id
)
def test_a_faulty_clip_is_refused_with_its_warnings_where_that_is_asked_for(
    case: Case, cases: dict[str, Case]
) -> None:
    path = next(path for path, other in cases.items() if other is case)
    strict = AudioConfig(strict=True)
    with pytest.raises(AudioError, match="^" + "; ".join(case.warned)):
        reader.read(path, strict)
    with (
        pytest.raises(AudioError, match=case.warned[0].split(":")[0]),
        open_blocks(path, SR, strict) as blocks,
    ):
        list(blocks)


@pytest.mark.parametrize("case", [case for case in CASES if not case.warned], ids=lambda case: case.id)
def test_a_clip_without_fault_is_read_also_where_faulty_ones_are_refused(
    case: Case, cases: dict[str, Case]
) -> None:
    path = next(path for path, other in cases.items() if other is case)
    found = [reason_of(lambda: reader.read(path, AudioConfig(strict=strict))) for strict in (False, True)]  # noqa: B023
    assert found[0] == found[1]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("harm", ["cut", "flipped"])
def test_of_a_damaged_flac_all_but_the_damage_is_used(harm: str, channels: int) -> None:
    y = np.stack([voice(4.0, f0=120.0 + i) for i in range(channels)], axis=1)
    content = bytearray(encoded(y, container="FLAC"))
    whole = reader.decode(bytes(content), CONFIG)[0]["mix"]
    middle = len(content) // 2
    damaged = content[:middle] if harm == "cut" else content
    damaged[middle - 1] ^= 0xFF

    heard, sr, warnings = reader.decode(bytes(damaged), CONFIG)

    n = len(heard["mix"])
    # A voice that does not change takes as many bytes in each second; a frame of FLAC has 4,096 samples.
    before = heard["mix"][: round(1.5 * sr)]
    np.testing.assert_array_equal(before, whole[: len(before)])
    if harm == "flipped":
        assert len(whole) - 2 * 4096 <= n < len(whole)
        np.testing.assert_array_equal(heard["mix"][-sr:], whole[-sr:])
    else:
        assert 1.5 * sr < n < 2.5 * sr
    assert warnings[-1].startswith("damaged: ")


@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
def test_an_ogg_file_that_was_cut_is_never_read_without_a_word(codec: str) -> None:
    whole = encoded(voice(4.0), SR, "OGG", codec)
    assert reader.decode(whole, CONFIG)[2] == ()
    for share in np.arange(0.05, 1.0, 0.05):
        try:
            heard, sr, warnings = reader.decode(whole[: int(share * len(whole))], CONFIG)
        except AudioError:
            continue
        held_s = len(heard["mix"]) / sr
        assert warnings == (
            f"truncated: the file ends within a page of its Ogg stream, after {held_s:.2f} s",
        )


@pytest.mark.parametrize("n", [1, 26, 300, 70_000])
def test_what_follows_an_ogg_stream_does_not_make_it_a_cut_one(n: int) -> None:
    whole = encoded(voice(1.0), SR, "OGG", "VORBIS")
    assert reader.decode(whole + bytes(n), CONFIG)[2] == ()


def speechemo(*arguments: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "speechemo_cli", *arguments], cwd=folder, capture_output=True, check=False
    )


def check_names_the_refused(stderr: bytes, cases: dict[str, Case]) -> None:
    """Each refused clip has one line of its own, with its whole reason."""
    lines = stderr.decode().splitlines()
    for path, case in cases.items():
        named = [line for line in lines if f"{display_name(path)}: " in line]
        if case.refused is None:
            assert not [line for line in named if line.startswith("error")]
        else:
            assert len(named) == 1, (path, named)
            assert re.search(f"{re.escape(display_name(path))}: {case.refused}$", named[0]), named[0]
    assert all(line.isprintable() for line in lines)
    assert "Traceback" not in stderr.decode()


def test_predict_answers_for_all_others(cases: dict[str, Case], tmp_path: Path) -> None:
    folder = str(Path(next(iter(cases))).parent)

    done = speechemo("predict", folder, "--format", "jsonl", folder=tmp_path)

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
            for doubt in case.doubted:
                assert any(warning.startswith(doubt) for warning in record["warnings"]), record["warnings"]
    check_names_the_refused(done.stderr, cases)


def test_extract_takes_all_others(cases: dict[str, Case], tmp_path: Path) -> None:
    folder = Path(next(iter(cases))).parents[1]

    done = speechemo("extract", str(folder), "--format", "json", "--jobs", "2", folder=tmp_path)

    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    assert {failure["path"] for failure in report["failed"]} == {
        path for path, case in cases.items() if case.refused is not None
    }
    for failure in report["failed"]:
        assert re.fullmatch(cases[failure["path"]].refused, failure["error"]), failure
    assert report["clips"] == len(cases)
    check_names_the_refused(done.stderr, cases)


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


def test_a_bomb_is_refused_before_memory_is_taken(cases: dict[str, Case]) -> None:
    sizes = {
        case.name: peak_bytes(path)
        for path, case in cases.items()
        if case.name in ("bomb.flac", "longer.flac")
    }

    assert max(sizes.values()) < 2**21


def test_three_hours_are_refused_by_their_header(cases: dict[str, Case]) -> None:
    (path,) = (path for path, case in cases.items() if case.name == "3-hours.wav")

    assert Path(path).stat().st_size > 80 * 2**20
    assert peak_bytes(path) < 2**21


def test_many_channels_are_mixed_as_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "PIECE", 2**17)
    frames, path = 30 * SR, tmp_path / "clip.flac"
    y = np.tile(np.round(voice(1.0) * 100).astype(np.int16), 30)
    soundfile.write(path, np.stack([y] * 8, axis=1), SR)

    np.testing.assert_array_equal(reader.read(path, CONFIG).y, y / np.float32(2**15))
    # The mean, and its parts before they are joined; all channels would be eight times as much.
    assert peak_bytes(path) - path.stat().st_size < 3 * 4 * frames


def test_a_file_too_large_to_be_one_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(encoded(voice()))
    os.truncate(path, 3000 * 2**20)

    with pytest.raises(AudioError, match=r"^\d+ bytes, expected \d+ at most$"):
        reader.read(path, CONFIG)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8])
@pytest.mark.parametrize(("container", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS")])
def test_pieces_are_the_whole_to_the_last_bit(
    channels: int, container: str, subtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    y = np.stack([voice(1.0, SR, 100 + 30 * i) for i in range(channels)], axis=1)
    content = encoded(y, SR, container, subtype)
    whole, sr, _ = reader.decode(content, CONFIG)
    monkeypatch.setattr(reader, "PIECE", 5000)

    in_pieces, _, _ = reader.decode(content, CONFIG)

    np.testing.assert_array_equal(in_pieces["mix"], whole["mix"])
    assert sr == SR


def test_a_stream_of_unknown_length_stops_at_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    content = flac_promising(0, 1, SR)
    monkeypatch.setattr(reader, "PIECE", 400)

    assert len(reader.decode(content, CONFIG)[0]["mix"]) == SR // 10
    with pytest.raises(AudioError, match=r"is longer than 0\.05 s"):
        reader.decode(content, AudioConfig(min_duration_s=0.04, max_duration_s=0.05))


def test_recordings_that_are_followed_have_the_same_limits(cases: dict[str, Case]) -> None:
    names = ("33-channels.wav", "2-ghz.wav", "raw.wav", "garbage.wav", "fifo.wav", "device.wav")
    for path, case in cases.items():
        if case.name in names:
            with pytest.raises(AudioError) as caught, open_blocks(path, SR, CONFIG):
                pass
            assert re.fullmatch(case.refused, str(caught.value))


# --- what is around a clip


@pytest.fixture
def mac_leftovers(tmp_path: Path) -> None:
    """What a Mac leaves in a folder, and what nobody would: opening it would wait for ever."""
    (tmp_path / ".AppleDouble").mkdir()
    os.mkfifo(tmp_path / "._")


@pytest.mark.parametrize("name", ["MP3.mp3", "tagged.mp3"])
def test_what_lies_in_the_working_folder_is_nothing_to_an_mp3(
    name: str, cases: dict[str, Case], mac_leftovers: None
) -> None:
    (path,) = (path for path, case in cases.items() if case.name == name)

    recording = reader.read(path, CONFIG)
    with open_blocks(path, SR, CONFIG) as blocks:
        joined = np.concatenate(list(blocks))

    expected, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_allclose(recording.y, expected, atol=1e-6)
    np.testing.assert_allclose(joined, expected, atol=1e-5)


def test_a_clip_that_goes_or_changes_while_it_is_read_is_refused_or_read_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(encoded(voice()))
    whole = reader.read(path, CONFIG)
    decode = reader.decode

    def change_first(*arguments):
        path.unlink()
        path.write_bytes(encoded(voice(2.0)))
        return decode(*arguments)

    monkeypatch.setattr(reader, "decode", change_first)
    again = reader.read(path, CONFIG)

    # The hash and the samples are those of one and the same content.
    assert again.sha256 == whole.sha256
    np.testing.assert_array_equal(again.y, whole.y)


# --- channels and offsets


@pytest.mark.parametrize(("share", "warned"), [(0.5, False), (0.75, True), (0.9, True)])
def test_channels_that_cancel_are_warned_about(share: float, warned: bool) -> None:
    y = voice()
    _, _, warnings = reader.decode(encoded(np.stack([y, -share * y], axis=1)), CONFIG)

    assert [warning.split(":")[0] for warning in warnings] == ["channels cancel"] * warned


@pytest.mark.parametrize("channels", [2, 3, 8, 32])
def test_one_voice_on_one_of_many_channels_cancels_nothing(channels: int) -> None:
    y = np.zeros((SR, channels), np.float32)
    y[:, 1] = voice(1.0)

    assert reader.decode(encoded(y), CONFIG)[2] == ()


@pytest.mark.parametrize("offset", [-0.4, 0.02, 0.3])
def test_an_offset_is_taken_out(offset: float) -> None:
    y = 0.5 * voice()

    level, warnings = audio_samples.without_offset(y + np.float32(offset))

    np.testing.assert_allclose(level, y - y.mean(), atol=1e-6)
    assert [warning.split(" of")[0] for warning in warnings] == [f"offset: {offset:+.2g}"]


@pytest.mark.parametrize("offset", [0.0, 0.001])
def test_samples_without_an_offset_stay_what_they_are(offset: float) -> None:
    y = voice() + np.float32(offset)

    assert audio_samples.without_offset(y)[0] is y


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_no_offset(bad: float) -> None:
    y = voice() + np.float32(0.3)
    y[::7] = bad

    assert audio_samples.without_offset(y) == (y, ())


# --- whatever the bytes are

ENCODED = {
    name: encoded(voice(0.4), SR, name, subtype)
    for name, subtype in (
        *(("WAV", "PCM_16"), ("AIFF", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")),
        *(("MP3", "MPEG_LAYER_III"), ("W64", "FLOAT"), ("CAF", "PCM_24"), ("AU", "ULAW"), ("NIST", "PCM_16")),
    )
} | {"tagged MP3": b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + encoded(voice(0.4), SR, "MP3", "MPEG_LAYER_III")}
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


def reason_of(attempt: Callable[[], None]) -> str:
    try:
        attempt()
    except AudioError as error:
        return str(error)
    return "none"


def check_samples_or_reason(content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """Read a file whole and in blocks; whatever is in it, there are these two ways out."""
    Path("clip").write_bytes(content)

    def whole() -> None:
        recording = reader.read("clip", CONFIG)
        assert np.isfinite(recording.y).all()
        assert CONFIG.min_duration_s <= recording.duration_s <= CONFIG.max_duration_s
        assert all(warning.isprintable() for warning in recording.warnings)

    def in_blocks() -> None:
        with open_blocks("clip", SR, CONFIG) as blocks:
            for block in blocks:
                assert np.isfinite(block).all()
                if blocks.duration_s > 30:
                    return

    for reason in (reason_of(whole), reason_of(in_blocks)):
        assert reason
        assert reason.isprintable()
    # libmpg123 has notes of its own for stderr.
    assert capfd.readouterr().out == ""


thorough = pytest.mark.slow
any_bytes = given(
    start=st.sampled_from([b"", *(content[:16] for content in ENCODED.values())]),
    noise=st.binary(max_size=400),
)


@pytest.mark.parametrize("n", [2**31 - 1, 2**63 - 1, -1, -(2**63)])
def test_a_header_that_sends_the_decoder_nowhere_is_silent(n: int) -> None:
    file = Part(io.BytesIO(b"12345"), 0, 5)
    for whence in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
        file.seek(2)
        file.seek(n, whence)
        assert file.tell() >= 0
        assert file.readinto(bytearray(8)) <= 5


def test_a_disk_that_fails_is_the_end_of_a_recording(tmp_path: Path) -> None:
    class Failing(io.BytesIO):
        def read(self, n: int | None = -1) -> bytes:
            if self.tell() > 20000:
                raise OSError(5, "Input/output error")
            return super().read(n)

    stream = AudioStream(Failing(encoded(voice())))
    assert len(stream.read(10000)) == 10000
    assert len(stream.read(5000)) == 0


def with_examples(n: int) -> settings:
    return settings(
        max_examples=n,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@with_examples(60)
@any_bytes
def test_any_bytes_give_samples_or_a_reason(start: bytes, noise: bytes, capfd) -> None:
    check_samples_or_reason(start + noise, capfd)


@with_examples(150)
@given(content=mutations())
def test_any_damage_gives_samples_or_a_reason(content: bytes, capfd) -> None:
    check_samples_or_reason(content, capfd)


@thorough
@with_examples(1500)
@any_bytes
def test_any_bytes_give_samples_or_a_reason_thoroughly(start: bytes, noise: bytes, capfd) -> None:
    check_samples_or_reason(start + noise, capfd)


@thorough
@with_examples(2500)
@given(content=mutations())
def test_any_damage_gives_samples_or_a_reason_thoroughly(content: bytes, capfd) -> None:
    check_samples_or_reason(content, capfd)


# --- whatever the name is

NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name).map(os.fsdecode)
LABELS = ("neutral", "happy")


def written(format_: str, names: list[str]) -> str:
    parts: list[str] = []
    writer = WRITERS[format_](Style("m.keras", LABELS), parts.append)
    for i, name in enumerate(names):
        answer = Answer(name, "happy", 0.75, {"neutral": 0.25, "happy": 0.75}, 1.5)
        writer.write(Refusal(name, "empty file") if i % 2 else answer)
    writer.close()
    return "".join(parts)


@with_examples(200)
@given(names=st.lists(NAMES, min_size=1, max_size=4))
@example(names=['a,\n"b\r', "\r\n", "\udce9", "\u2028\x85\x0b", "=1+1", " ", "\\"])
def test_any_name_survives_csv_and_json(names: list[str]) -> None:
    lines = written("jsonl", names).splitlines()
    assert [json.loads(line)["path"] for line in lines] == names
    assert [clip["path"] for clip in json.loads(written("json", names))["clips"]] == names
    # As bytes on the disk, and back.
    file = written("csv", names).encode("utf-8", "surrogateescape")
    rows = csv.DictReader(io.StringIO(file.decode("utf-8", "surrogateescape"), newline=""))
    assert [row["path"] for row in rows] == names


@with_examples(200)
@given(name=NAMES)
def test_any_name_is_one_line_of_a_terminal(name: str) -> None:
    assert display_name(name).isprintable()
    assert "\n" not in written("table", [name]).splitlines()[-1]
    assert len(written("table", [name]).splitlines()) == 2
