"""Extraction: what is done once is done; one bad clip stops no other and is named."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from conftest import harmonic

from speechemo_cli.audio import reader
from speechemo_cli.audio.reader import resample
from speechemo_cli.config import AudioConfig, AugmentConfig, Config, MfccConfig
from speechemo_cli.corpus.clips import Clip
from speechemo_cli.errors import AccessError
from speechemo_cli.features import FEATURE_SETS, workers
from speechemo_cli.features.augment import apply_condition
from speechemo_cli.features.extraction import extract
from speechemo_cli.features.store import FeatureStore, StoredFeatures
from speechemo_cli.features.workers import Outcome, Task, compute, compute_chunk
from speechemo_cli.files import sha256_file

if TYPE_CHECKING:
    from collections.abc import Callable

    WriteClip = Callable[..., Path]

SETS = tuple(FEATURE_SETS)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(store=str(tmp_path / "features"), jobs=1, augment=AugmentConfig(copies=1))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that the reader is asked for, in order."""
    asked: list[str] = []
    original = reader.read_bytes

    def counting(path: str, audio: AudioConfig) -> bytes:
        asked.append(str(path))
        return original(path, audio)

    monkeypatch.setattr(reader, "read_bytes", counting)
    return asked


def make_clips(write_clip: WriteClip, n: int, label: str = "angry") -> list[Clip]:
    return [
        Clip(str(write_clip(f"clip{i:02d}.wav", seconds=0.25 + 0.005 * i, f0=100 + 5 * i)), label)
        for i in range(n)
    ]


def stored(clips: list[Clip], config: Config, name: str) -> dict[str, StoredFeatures]:
    """What the store holds, by the name of the clip."""
    store = FeatureStore.open(name, config)
    keys = {Path(clip.path).name: sha256_file(clip.path) for clip in clips}
    entries = store.read(keys.values())
    return {file: entries[key] for file, key in keys.items() if key in entries}


def test_every_clip_is_computed_and_stored(write_clip: WriteClip, config: Config) -> None:
    clips = make_clips(write_clip, 5)
    report = extract(clips, config)
    assert (report.clips, report.extracted, report.cached, report.duplicates) == (5, 5, 0, 0)
    assert report.failed == []
    assert report.damaged == []
    assert report.keys == {clip.path: sha256_file(clip.path) for clip in clips}
    for name, kind in FEATURE_SETS.items():
        for file, entry in stored(clips, config, name).items():
            y, sr = soundfile.read(file, dtype="float32")
            # A process with other threads may sum in another order.
            resampled = resample(y, sr, kind.sr(config))
            expected = kind.compute(resampled, config, entry.samples_sha256)
            np.testing.assert_allclose(entry.values, expected, atol=1e-4)
            assert entry.duration_s == pytest.approx(len(y) / sr)
        assert len(stored(clips, config, name)) == 5


@pytest.mark.parametrize("name", SETS)
def test_features_are_those_of_the_clip_resampled_to_the_rate_of_the_set(
    name: str, write_clip: WriteClip
) -> None:
    config, kind = Config(), FEATURE_SETS[name]
    recording = reader.read(write_clip(seconds=0.5, sr=44100), config.audio)

    features = compute(recording, name, config)

    y = resample(recording.y, 44100, kind.sr(config))
    expected = kind.compute(y, config, recording.samples_sha256)
    np.testing.assert_array_equal(features, expected)
    assert features.shape[1] == kind.dim(config)


def test_features_under_a_condition_are_those_of_the_changed_clip(write_clip: WriteClip) -> None:
    config = Config()
    recording = reader.read(write_clip(seconds=0.5, sr=44100), config.audio)

    features = compute(recording, "mfcc@telephone", config)

    y = apply_condition("telephone", recording.y, 44100, recording.samples_sha256)
    changed = dataclasses.replace(recording, decoded=y)
    np.testing.assert_array_equal(features, compute(changed, "mfcc", config))
    assert not np.allclose(features, compute(recording, "mfcc", config))


def test_a_condition_has_a_place_of_its_own_in_the_store(write_clip: WriteClip, config: Config) -> None:
    clips = make_clips(write_clip, 2)

    report = extract(clips, config, ("mfcc", "mfcc@louder"))

    assert report.extracted == 2
    plain, louder = (stored(clips, config, name) for name in ("mfcc", "mfcc@louder"))
    # 30 dB in the first coefficient, and nothing else.
    for file, entry in plain.items():
        difference = louder[file].values - entry.values
        np.testing.assert_allclose(difference[0, 1:], 0, atol=0.02)
        assert difference[0, 0] == pytest.approx(30 * np.sqrt(128), rel=1e-3)
    assert extract(clips, config, ("mfcc@louder",)).cached == 2


def test_a_second_run_computes_nothing(write_clip: WriteClip, config: Config, decoded: list[str]) -> None:
    clips = make_clips(write_clip, 4)
    extract(clips, config)
    assert len(decoded) == 4
    report = extract(clips, config)
    assert (report.extracted, report.cached) == (0, 4)
    assert len(decoded) == 4


def test_each_clip_is_decoded_once_for_all_sets(
    write_clip: WriteClip, config: Config, decoded: list[str]
) -> None:
    clips = make_clips(write_clip, 20)  # few enough to stay in this process
    extract(clips, config, SETS)
    assert sorted(decoded) == sorted(clip.path for clip in clips)


def test_a_renamed_clip_costs_nothing(write_clip: WriteClip, config: Config, decoded: list[str]) -> None:
    clips = make_clips(write_clip, 3)
    extract(clips, config)
    decoded.clear()
    moved = Path(clips[0].path).rename("renamed.flac")
    report = extract([Clip(str(moved), "sad"), *clips[1:]], config)
    assert (report.extracted, report.cached) == (0, 3)
    assert decoded == []


def test_an_edited_clip_is_recomputed_alone(
    write_clip: WriteClip, config: Config, decoded: list[str]
) -> None:
    clips = make_clips(write_clip, 3)
    extract(clips, config)
    old = stored(clips, config, "mfcc")["clip01.wav"]
    decoded.clear()
    write_clip("clip01.wav", seconds=0.5, f0=300)
    report = extract(clips, config)
    assert (report.extracted, report.cached) == (1, 2)
    assert decoded == [clips[1].path]
    assert not np.allclose(stored(clips, config, "mfcc")["clip01.wav"].values, old.values)


def test_copies_are_counted_once_and_computed_once(
    write_clip: WriteClip, config: Config, decoded: list[str]
) -> None:
    clips = make_clips(write_clip, 2)
    copies = [Clip(shutil.copy(clips[0].path, f"copy{i}.wav"), "angry") for i in range(3)]
    report = extract([*clips, *copies], config)
    assert (report.clips, report.extracted, report.duplicates) == (5, 2, 3)
    assert len(decoded) == 2
    assert report.keys[copies[2].path] == report.keys[clips[0].path]
    again = extract([*clips, *copies], config)
    assert (again.extracted, again.cached, again.duplicates) == (0, 2, 3)


def test_hashes_are_left_out_unless_they_are_asked_for(
    write_clip: WriteClip, config: Config, tmp_path: Path
) -> None:
    clips = make_clips(write_clip, 30)
    clips += [Clip(shutil.copy(clips[i].path, f"copy{i}.wav"), "angry") for i in (0, 29)]
    (tmp_path / "bad.wav").write_text("no sound")
    clips += [Clip(str(tmp_path / "bad.wav"), "sad")]
    for jobs in (1, 2):
        fresh = dataclasses.replace(config, jobs=jobs, store=str(tmp_path / f"store{jobs}"))
        report = extract(clips, fresh, keep_keys=False)
        assert report.keys == {}
        assert (report.clips, report.extracted, report.duplicates, len(report.failed)) == (33, 30, 2, 1)


def bad_clips(folder: Path) -> dict[str, str]:
    """Write one clip of each kind that is refused; return a part of the reason by name."""
    silence, nan = np.zeros(16000, np.float32), harmonic(0.5, 16000)
    nan[100] = np.nan
    soundfile.write(folder / "silent.wav", silence, 16000)
    soundfile.write(folder / "short.wav", harmonic(0.1, 16000), 16000)
    soundfile.write(folder / "nan.wav", nan, 16000, subtype="FLOAT")
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is no sound")
    (folder / "folder.wav").mkdir()
    return {
        "silent.wav": "silent",
        "short.wav": "shorter than",
        "nan.wav": "NaN",
        "empty.wav": "empty file",
        "text.wav": "not audio",
        "folder.wav": "a folder",
        "missing.wav": "no such file",
    }


def test_refused_clips_are_named_with_the_reason_and_the_others_are_done(
    write_clip: WriteClip, config: Config, tmp_path: Path
) -> None:
    reasons = bad_clips(tmp_path)
    good = make_clips(write_clip, 4)
    bad = [Clip(str(tmp_path / name), "sad") for name in reasons]
    # Good and bad in turn, so that order is something to keep.
    clips = [clip for pair in zip(bad, [*good, *good[:3]], strict=True) for clip in pair]
    report = extract(clips, config)
    assert [Path(failure.path).name for failure in report.failed] == list(reasons)
    for failure, reason in zip(report.failed, reasons.values(), strict=True):
        assert reason in failure.error
    assert report.extracted == 4
    assert report.keys.keys() == {clip.path for clip in good}
    assert len(stored(good, config, "mfcc")) == 4


def test_a_mistake_of_ours_costs_the_clip_it_is_made_at(
    write_clip: WriteClip, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = make_clips(write_clip, 8)
    read = reader.read_channels

    def broken(path: str, *more: Any) -> list[reader.Recording]:
        if path.endswith("clip03.wav"):
            raise OverflowError("of ours\n")
        return read(path, *more)

    monkeypatch.setattr(reader, "read_channels", broken)

    report = extract(clips, config, ["mfcc"])

    (failure,) = report.failed
    assert failure.path == clips[3].path
    assert failure.error == r"internal error: OverflowError: of ours\n"
    assert report.extracted == len(clips) - 1


def test_a_clip_whose_last_set_fails_is_in_no_shard(
    write_clip: WriteClip, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(recording: reader.Recording, feature_set: str, config: Config) -> np.ndarray:
        if feature_set == SETS[-1]:
            raise MemoryError
        return compute(recording, feature_set, config)

    (clip,) = make_clips(write_clip, 1)
    monkeypatch.setattr(workers, "compute", broken)

    report = extract([clip], config)

    assert [failure.error for failure in report.failed] == ["out of memory. Use fewer --jobs, or cut it"]
    assert stored([clip], config, SETS[0]) == {}


def test_who_looks_for_a_mistake_gets_the_exception(
    write_clip: WriteClip, config: Config, debugged_mistake: type[Exception]
) -> None:
    with pytest.raises(debugged_mistake, match="of ours"):
        extract(make_clips(write_clip, 1), config)


def test_a_refused_clip_is_tried_again_and_done_once_it_is_repaired(
    write_clip: WriteClip, config: Config, tmp_path: Path
) -> None:
    (tmp_path / "clip00.wav").write_text("half a download")
    clip = Clip(str(tmp_path / "clip00.wav"), "angry")
    assert len(extract([clip], config).failed) == 1
    assert len(extract([clip], config).failed) == 1
    assert extract(make_clips(write_clip, 1), config).extracted == 1


def test_copies_of_a_refused_clip_fail_with_it(write_clip: WriteClip, config: Config, tmp_path: Path) -> None:
    good = make_clips(write_clip, 2)
    for name in ("bad0.wav", "bad1.wav", "bad2.wav"):
        (tmp_path / name).write_text("no sound")
    bad = [Clip(str(tmp_path / f"bad{i}.wav"), "sad") for i in range(3)]
    report = extract([bad[2], good[0], bad[0], good[1], bad[1]], config)
    assert [failure.path for failure in report.failed] == [bad[2].path, bad[0].path, bad[1].path]
    assert len({failure.error for failure in report.failed}) == 1
    assert (report.extracted, report.duplicates) == (2, 0)
    assert report.keys.keys() == {clip.path for clip in good}


def test_a_warning_of_the_reader_is_stored_with_the_features(write_clip: WriteClip, config: Config) -> None:
    path = write_clip("cut.wav", seconds=1.0)
    path.write_bytes(path.read_bytes()[:-8000])
    entry = stored([Clip(str(path), "sad")], config, "mfcc")
    assert entry == {}
    extract([Clip(str(path), "sad")], config)
    (warning,) = stored([Clip(str(path), "sad")], config, "mfcc")["cut.wav"].warnings
    assert "truncated: the header promises 1.00 s" in warning


def test_what_a_killed_run_had_finished_is_not_computed_again(
    write_clip: WriteClip, config: Config, decoded: list[str]
) -> None:
    clips = make_clips(write_clip, 9)
    chunk = [Task(clip.path, sha256_file(clip.path), SETS) for clip in clips[:4]]
    assert compute_chunk(chunk, config, "") == ([Outcome(task.key) for task in chunk], {})
    decoded.clear()
    report = extract(clips, config)
    assert (report.extracted, report.cached) == (5, 4)
    assert decoded == [clip.path for clip in clips[4:]]


def test_an_interrupted_run_keeps_the_chunks_it_had_finished(
    write_clip: WriteClip, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = make_clips(write_clip, 22)  # few enough to stay in this process
    original, count = reader.read_bytes, 0

    def interrupted(path: str, audio: AudioConfig) -> bytes:
        nonlocal count
        count += 1
        if count > 18:
            raise KeyboardInterrupt
        return original(path, audio)

    with monkeypatch.context() as patched:
        patched.setattr(reader, "read_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extract(clips, config)
    report = extract(clips, config)
    assert 0 < report.cached <= 18
    assert report.extracted == 22 - report.cached
    assert len(stored(clips, config, "mfcc")) == 22


def test_a_change_of_the_mfcc_config_leaves_other_sets_cached(
    write_clip: WriteClip, config: Config, decoded: list[str]
) -> None:
    clips = make_clips(write_clip, 3)
    extract(clips, config)
    decoded.clear()
    changed = dataclasses.replace(config, mfcc=MfccConfig(n_mfcc=13))
    assert extract(clips, changed, ("whisper",)).cached == 3
    assert decoded == []
    assert extract(clips, changed, ("mfcc",)).extracted == 3
    assert stored(clips, changed, "mfcc")["clip00.wav"].values.shape == (1, 13)
    # The old numbers are still there for whoever goes back.
    assert extract(clips, config).cached == 3


def test_a_set_that_was_not_asked_for_is_not_computed(write_clip: WriteClip, config: Config) -> None:
    clips = make_clips(write_clip, 2)
    extract(clips, config, ("mfcc",))
    assert len(stored(clips, config, "mfcc")) == 2
    assert stored(clips, config, "whisper") == {}
    # A clip counts as cached only where every set that is asked for has it.
    assert extract(clips, config, SETS).extracted == 2
    assert len(stored(clips, config, "whisper")) == 2


def test_a_clip_that_changes_while_it_is_read_is_not_stored(
    write_clip: WriteClip, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = make_clips(write_clip, 3)
    original = reader.read_bytes

    def edited_first(path: str, audio: AudioConfig) -> bytes:
        if path == clips[1].path:
            write_clip("clip01.wav", seconds=0.4, f0=333)
        return original(path, audio)

    with monkeypatch.context() as patched:
        patched.setattr(reader, "read_bytes", edited_first)
        report = extract(clips, config)
    assert [(failure.path, failure.error) for failure in report.failed] == [
        (clips[1].path, "changed while it was being read")
    ]
    assert report.extracted == 2
    assert clips[1].path not in report.keys
    assert stored(clips, config, "mfcc").keys() == {"clip00.wav", "clip02.wav"}
    assert extract(clips, config).extracted == 1


def test_a_damaged_shard_is_named_and_its_clips_are_computed_again(
    write_clip: WriteClip, config: Config
) -> None:
    clips = make_clips(write_clip, 3)
    extract(clips, config, ("mfcc",))
    (shard,) = Path(config.store).glob("mfcc-*/*.npz")
    shard.write_bytes(shard.read_bytes()[:-40])
    report = extract(clips, config, ("mfcc",))
    assert report.extracted == 3
    assert report.damaged == [f"{shard}.damaged"]
    assert extract(clips, config, ("mfcc",)).cached == 3


@pytest.mark.parametrize("n", [3, 40])
def test_progress_grows_clip_by_clip_or_chunk_by_chunk_to_the_total(
    write_clip: WriteClip, config: Config, tmp_path: Path, n: int
) -> None:
    clips = make_clips(write_clip, n)
    copy = Clip(shutil.copy(clips[0].path, "copy.wav"), "angry")
    clips = [*clips, copy, Clip(str(tmp_path / "missing.wav"), "sad")]
    for _ in range(2):  # nothing is stored, then everything
        steps: list[tuple[int, int]] = []
        extract(clips, config, ("mfcc",), lambda *step: steps.append(step))  # noqa: B023
        done = [step[0] for step in steps]
        assert done == sorted(done)
        assert steps[-1] == (n + 2, n + 2)
        assert {total for _, total in steps} == {n + 2}


def test_no_clips_are_no_work(config: Config) -> None:
    report = extract([], config)
    assert (report.clips, report.extracted, report.failed) == (0, 0, [])
    assert not Path(config.store).exists()


def test_clips_are_never_modified(write_clip: WriteClip, config: Config) -> None:
    clips = make_clips(write_clip, 3)
    before = [(Path(clip.path).read_bytes(), Path(clip.path).stat().st_mtime_ns) for clip in clips]
    extract(clips, config)
    assert [(Path(clip.path).read_bytes(), Path(clip.path).stat().st_mtime_ns) for clip in clips] == before


def test_a_store_that_is_a_file_is_an_access_error(write_clip: WriteClip, config: Config) -> None:
    Path(config.store).write_text("not a folder")
    with pytest.raises(AccessError, match=r"cannot (read|write)"):
        extract(make_clips(write_clip, 2), config)
    assert Path(config.store).read_text() == "not a folder"


def test_worker_processes_give_the_same_numbers_and_the_same_report(
    write_clip: WriteClip, config: Config, tmp_path: Path
) -> None:
    good = make_clips(write_clip, 30)
    copy = Clip(shutil.copy(good[0].path, "copy.wav"), "angry")
    for name in ("bad0.wav", "bad1.wav", "bad2.wav"):
        (tmp_path / name).write_text(f"no sound {name}")
    bad = [Clip(str(tmp_path / f"bad{i}.wav"), "sad") for i in range(3)]
    clips = [bad[1], *good[:15], bad[2], *good[15:], copy, bad[0]]
    parallel = dataclasses.replace(config, jobs=2, store=str(tmp_path / "parallel"))
    steps: list[int] = []
    reports = [
        extract(clips, config),
        extract(clips, parallel, on_progress=lambda done, _: steps.append(done)),
    ]
    assert steps[-1] == len(clips)
    one, other = ({**dataclasses.asdict(report), "seconds": 0.0} for report in reports)
    assert one == other
    assert (reports[1].extracted, reports[1].duplicates) == (30, 1)
    assert [failure.path for failure in reports[1].failed] == [bad[i].path for i in (1, 2, 0)]
    for name in SETS:
        here, there = stored(good, config, name), stored(good, parallel, name)
        assert len(here) == len(there) == 30
        for file, entry in here.items():
            np.testing.assert_array_equal(entry.values, there[file].values)
            assert entry.duration_s == there[file].duration_s
    assert extract(clips, parallel).cached == 30

    # What a worker raises arrives here as what it is. The workers are warm by now, so it is asked here.
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(AccessError, match=r"cannot (read|write)"):
        extract(good, dataclasses.replace(parallel, store=str(tmp_path / "file")))


def test_where_there_can_be_no_worker_processes_the_work_is_done_here(
    write_clip: WriteClip, config: Config, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("joblib.effective_n_jobs", lambda n: 1)
    clips = make_clips(write_clip, 30)

    assert extract(clips, dataclasses.replace(config, jobs=2), ("mfcc",)).extracted == 30
    assert len(decoded) == 30


def test_an_error_of_the_progress_ends_the_workers(write_clip: WriteClip, config: Config) -> None:
    import multiprocessing

    def stopped(done: int, _: int) -> None:
        if done:
            raise KeyboardInterrupt

    clips = make_clips(write_clip, 60)
    with pytest.raises(KeyboardInterrupt):
        extract(clips, dataclasses.replace(config, jobs=2), ("mfcc",), stopped)

    assert multiprocessing.active_children() == []
    assert extract(clips, config, ("mfcc",)).cached >= 8


def test_the_limits_of_the_config_decide_what_is_refused(write_clip: WriteClip, config: Config) -> None:
    clips = [Clip(str(write_clip("half.wav", seconds=0.5)), "sad"), Clip(str(write_clip("one.wav")), "sad")]
    strict = dataclasses.replace(config, audio=AudioConfig(min_duration_s=0.6, max_duration_s=5.0))
    report = extract(clips, strict)
    assert [Path(failure.path).name for failure in report.failed] == ["half.wav"]
    assert "0.500 s is shorter than 0.6 s" in report.failed[0].error


def test_what_was_stored_with_a_warning_is_refused_where_that_is_asked_for(
    write_clip: WriteClip, config: Config
) -> None:
    cut = write_clip("cut.wav")
    cut.write_bytes(cut.read_bytes()[:-8000])
    clips = [Clip(str(cut), "sad"), Clip(str(write_clip("whole.wav", f0=200.0)), "sad")]
    extract(clips, config)

    strict = extract(clips, dataclasses.replace(config, audio=AudioConfig(strict=True)))
    again = extract(clips, config)

    assert (strict.cached, [Path(failure.path).name for failure in strict.failed]) == (1, ["cut.wav"])
    assert strict.failed[0].error.startswith("truncated: ")
    assert (again.cached, again.failed, len(again.quality_warnings)) == (2, [], 1)


@pytest.mark.parametrize(
    ("changed", "lapsed"),
    [
        ({"mfcc": MfccConfig(hop_length=256)}, "mfcc"),
        ({"augment": AugmentConfig(copies=2)}, "augment"),
    ],
)
def test_only_the_set_whose_config_changed_lapses(
    write_clip: WriteClip, config: Config, changed: dict, lapsed: str
) -> None:
    clips = make_clips(write_clip, 2)
    extract(clips, config)
    other = dataclasses.replace(config, **changed)
    for name in SETS:
        assert extract(clips, other, (name,)).extracted == (2 if name == lapsed else 0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_among_the_clips_is_refused_and_does_not_hang(write_clip: WriteClip, config: Config) -> None:
    os.mkfifo("pipe.wav")

    report = extract([Clip("pipe.wav", "sad"), Clip(str(write_clip()), "sad")], config)

    assert [(failure.path, failure.error) for failure in report.failed] == [
        ("pipe.wav", "not a regular file")
    ]
    assert report.extracted == 1


def test_a_set_that_is_stored_is_not_computed_again_for_the_sake_of_another(
    write_clip: WriteClip, config: Config
) -> None:
    clips = [Clip(str(write_clip()), "sad")]
    extract(clips, config)
    before = sorted(Path(config.store).glob("whisper-*/*.npz"))

    extract(clips, dataclasses.replace(config, mfcc=dataclasses.replace(config.mfcc, n_mfcc=13)))

    assert sorted(Path(config.store).glob("whisper-*/*.npz")) == before
    assert len(list(Path(config.store).glob("mfcc-*/*.npz"))) == 2


def test_a_stored_clip_is_refused_when_the_limits_have_tightened(
    write_clip: WriteClip, config: Config
) -> None:
    clips = [Clip(str(write_clip(seconds=1.0)), "sad")]
    extract(clips, config)

    report = extract(clips, dataclasses.replace(config, audio=AudioConfig(min_duration_s=30.0)))

    assert report.failed[0].error == "1.000 s is shorter than 30 s"


def test_an_odd_clip_is_doubted_each_time(write_clip: WriteClip, config: Config) -> None:
    path = write_clip("cut.wav", seconds=1.0)
    path.write_bytes(path.read_bytes()[:-8000])

    first, second = (extract([Clip(str(path), "sad")], config) for _ in range(2))

    assert first.quality_warnings == second.quality_warnings
    assert first.quality_warnings[0].path == str(path)
    assert first.quality_warnings[0].warning.startswith("truncated: the header promises 1.00 s")
