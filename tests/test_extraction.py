"""Extraction: what is done once is done; one bad clip stops no other and is named."""

from __future__ import annotations

import dataclasses
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechemo_cli.audio import reader
from speechemo_cli.config import AudioConfig, AugmentConfig, Config, MfccConfig
from speechemo_cli.corpus.clips import Clip
from speechemo_cli.errors import AccessError
from speechemo_cli.features import FEATURE_SETS, extraction
from speechemo_cli.features.augment import apply_condition
from speechemo_cli.features.extraction import compute, extract
from speechemo_cli.features.store import FeatureStore, StoredFeatures
from speechemo_cli.files import sha256_file

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


def make_clips(write_clip: WriteClip, n: int) -> list[Clip]:
    return [
        Clip(str(write_clip(f"clip{i:02d}.wav", seconds=0.25 + 0.005 * i, f0=100 + 5 * i)), "angry")
        for i in range(n)
    ]


def bad_clips(*names: str) -> list[Clip]:
    for name in names:
        Path(name).write_text("no sound")
    return [Clip(name, "sad") for name in names]


def stored(clips: list[Clip], config: Config, name: str = "mfcc") -> dict[str, StoredFeatures]:
    """What the store holds, by the name of the clip."""
    keys = {Path(clip.path).name: sha256_file(clip.path) for clip in clips}
    entries = FeatureStore.open(name, config).read(keys.values())
    return {file: entries[key] for file, key in keys.items() if key in entries}


def with_audio(config: Config, **audio: Any) -> Config:
    return dataclasses.replace(config, audio=AudioConfig(**audio))


def test_extract_computes_every_clip_once_for_all_sets(
    write_clip: WriteClip, config: Config, decoded: list[str]
) -> None:
    clips = make_clips(write_clip, 5)
    before = [(Path(clip.path).read_bytes(), Path(clip.path).stat().st_mtime_ns) for clip in clips]

    report = extract(clips, config)

    assert (report.clips, report.extracted, report.cached, report.duplicates) == (5, 5, 0, 0)
    assert report.failed == report.damaged == []
    assert report.keys == {clip.path: sha256_file(clip.path) for clip in clips}
    assert decoded == [clip.path for clip in clips]
    for name in SETS:
        entries = stored(clips, config, name)
        assert len(entries) == 5
        for file, entry in entries.items():
            recording = reader.read(file, config.audio)
            # A process with other threads may sum in another order.
            np.testing.assert_allclose(entry.values, compute(recording, name, config), atol=1e-4)
            assert entry.duration_s == pytest.approx(recording.duration_s)
            assert entry.samples_sha256 == recording.samples_sha256

    decoded.clear()
    report = extract(clips, config)
    assert (report.extracted, report.cached, decoded) == (0, 5, [])
    assert [(Path(clip.path).read_bytes(), Path(clip.path).stat().st_mtime_ns) for clip in clips] == before


def test_compute_resamples_to_the_rate_of_the_set_and_changes_the_clip_for_a_condition(
    write_clip: WriteClip,
) -> None:
    config = Config()
    recording = reader.read(write_clip(seconds=0.5, sr=44100), config.audio)
    for name, kind in FEATURE_SETS.items():
        y = reader.resample(recording.y, 44100, kind.sr(config))
        expected = kind.compute(y, config, recording.samples_sha256)
        np.testing.assert_array_equal(compute(recording, name, config), expected)
        assert expected.shape[1] == kind.dim(config)

    y = apply_condition("telephone", recording.y, 44100, recording.samples_sha256)
    changed = dataclasses.replace(recording, decoded=y)
    np.testing.assert_array_equal(
        compute(recording, "mfcc@telephone", config), compute(changed, "mfcc", config)
    )


def test_extract_computes_an_edited_clip_anew_but_not_a_renamed_one(
    write_clip: WriteClip, config: Config, decoded: list[str]
) -> None:
    clips = make_clips(write_clip, 3)
    extract(clips, config, ("mfcc",))
    old = stored(clips, config)["clip01.wav"]
    decoded.clear()
    write_clip("clip01.wav", seconds=0.5, f0=300)
    clips[0] = Clip(str(Path(clips[0].path).rename("renamed.flac")), "sad")

    report = extract(clips, config, ("mfcc",))

    assert (report.extracted, report.cached) == (1, 2)
    assert decoded == [clips[1].path]
    assert not np.allclose(stored(clips, config)["clip01.wav"].values, old.values)


def test_extract_counts_copies_once_and_computes_them_once(
    write_clip: WriteClip, config: Config, decoded: list[str]
) -> None:
    clips = make_clips(write_clip, 2)
    clips += [Clip(shutil.copy(clips[0].path, f"copy{i}.wav"), "angry") for i in range(3)]
    report = extract(clips, config, ("mfcc",))
    assert (report.clips, report.extracted, report.duplicates) == (5, 2, 3)
    assert len(decoded) == 2
    assert report.keys[clips[4].path] == report.keys[clips[0].path]
    again = extract(clips, config, ("mfcc",), keep_keys=False)
    assert (again.extracted, again.cached, again.duplicates, again.keys) == (0, 2, 3, {})


def test_extract_stores_nothing_of_a_clip_when_its_last_set_fails_and_does_the_others(
    write_clip: WriteClip, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(recording: reader.Recording, feature_set: str, config: Config) -> np.ndarray:
        if feature_set == SETS[-1] and recording.sha256 == sha256_file(clips[1].path):
            raise OverflowError("of ours\n")
        return compute(recording, feature_set, config)

    clips = make_clips(write_clip, 3)
    monkeypatch.setattr(extraction, "compute", broken)

    report = extract(clips, config)

    ((path, error),) = ((failure.path, failure.error) for failure in report.failed)
    assert (path, error) == (clips[1].path, r"internal error: OverflowError: of ours\n")
    assert stored(clips, config, SETS[0]).keys() == {"clip00.wav", "clip02.wav"}
    monkeypatch.setenv("SPEECHEMO_DEBUG", "1")  # as --debug sets it, for the traceback
    with pytest.raises(OverflowError, match="of ours"):
        extract(clips, config)


def test_extract_refuses_copies_of_a_refused_clip_and_tries_again_once_it_is_repaired(
    write_clip: WriteClip, config: Config
) -> None:
    good, bad = make_clips(write_clip, 2), bad_clips("bad0.wav", "bad1.wav", "bad2.wav")
    for _ in range(2):
        report = extract([bad[2], good[0], bad[0], good[1], bad[1]], config, ("mfcc",))
        assert [failure.path for failure in report.failed] == [bad[2].path, bad[0].path, bad[1].path]
        assert len({failure.error for failure in report.failed}) == 1
        assert report.duplicates == 0
        assert report.keys.keys() == {clip.path for clip in good}
    write_clip("bad1.wav", f0=300)
    report = extract([*good, *bad], config, ("mfcc",))
    assert (report.extracted, report.cached, len(report.failed)) == (1, 2, 2)


def test_extract_tells_a_warning_each_time_and_refuses_the_clip_where_that_is_asked_for(
    write_clip: WriteClip, config: Config
) -> None:
    cut, whole = write_clip("cut.wav"), write_clip("whole.wav", f0=200.0)
    cut.write_bytes(cut.read_bytes()[:-8000])
    clips = [Clip(str(path), "sad") for path in (cut, whole)]
    for n_cached in (0, 2):
        report = extract(clips, config, ("mfcc",))
        assert (report.cached, report.failed) == (n_cached, [])
        ((path, text),) = ((odd.path, odd.warning) for odd in report.quality_warnings)
        assert path == clips[0].path
        assert text.startswith("truncated: the header promises 1.00 s")
        assert stored(clips, config)["cut.wav"].warnings == (text,)

    report = extract(clips, with_audio(config, strict=True), ("mfcc",))
    assert (report.cached, [failure.path for failure in report.failed]) == (1, [clips[0].path])
    assert report.failed[0].error.startswith("truncated: ")


def test_extract_keeps_to_the_limits_also_for_what_is_stored(write_clip: WriteClip, config: Config) -> None:
    clips = [Clip(str(write_clip("half.wav", seconds=0.5)), "sad"), Clip(str(write_clip("one.wav")), "sad")]
    for limited in (False, True, False, True):
        audio = with_audio(config, min_duration_s=0.6, max_duration_s=5.0) if limited else config
        errors = [(failure.path, failure.error) for failure in extract(clips, audio, ("mfcc",)).failed]
        assert errors == [(clips[0].path, "0.500 s is shorter than 0.6 s")][: int(limited)]


def test_extract_computes_only_the_set_with_a_changed_config(write_clip: WriteClip, config: Config) -> None:
    clips = make_clips(write_clip, 2)
    assert extract(clips, config, (SETS[0],)).extracted == 2
    assert stored(clips, config, SETS[1]) == {}
    # A clip counts as cached only where every set that is asked for has it.
    assert extract(clips, config).extracted == 2
    other = dataclasses.replace(config, mfcc=MfccConfig(n_mfcc=13))
    before = set(Path(config.store).glob("*/*.npz"))
    assert len(before) == len(SETS)
    assert extract(clips, other).extracted == 2
    (new,) = set(Path(config.store).glob("*/*.npz")) - before
    assert new.parent.name.startswith("mfcc-")
    # The old numbers are still there for whoever goes back.
    assert extract(clips, config).cached == 2


def test_extract_refuses_a_clip_that_changes_while_it_is_read(
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
        report = extract(clips, config, ("mfcc",))
    assert [(failure.path, failure.error) for failure in report.failed] == [
        (clips[1].path, "changed while it was being read")
    ]
    assert report.keys.keys() == {clips[0].path, clips[2].path}
    assert stored(clips, config).keys() == {"clip00.wav", "clip02.wav"}
    assert extract(clips, config, ("mfcc",)).extracted == 1


@pytest.mark.parametrize("n", [3, 40])
def test_extract_tells_its_progress_up_to_the_total(write_clip: WriteClip, config: Config, n: int) -> None:
    clips = make_clips(write_clip, n)
    clips += [Clip(shutil.copy(clips[0].path, "copy.wav"), "angry"), Clip("missing.wav", "sad")]
    for _ in range(2):  # nothing is stored, then everything
        steps: list[tuple[int, int]] = []
        extract(clips, config, ("mfcc",), lambda *step: steps.append(step))  # noqa: B023
        done = [step[0] for step in steps]
        assert done == sorted(done)
        assert steps[-1] == (n + 2, n + 2)
        assert {total for _, total in steps} == {n + 2}


def test_extract_without_clips_makes_no_store_and_replaces_no_file(
    write_clip: WriteClip, config: Config
) -> None:
    report = extract([], config)
    assert (report.clips, report.extracted, report.failed) == (0, 0, [])
    assert not Path(config.store).exists()
    Path(config.store).write_text("not a folder")
    with pytest.raises(AccessError, match=r"cannot (read|write)"):
        extract(make_clips(write_clip, 2), config)
    assert Path(config.store).read_text() == "not a folder"


def test_extract_in_worker_processes_gives_the_same_numbers_and_the_same_report(
    write_clip: WriteClip, config: Config, tmp_path: Path
) -> None:
    good = make_clips(write_clip, 26)
    copy, bad = Clip(shutil.copy(good[0].path, "copy.wav"), "angry"), bad_clips("0.wav", "1.wav")
    missing = Clip("missing.wav", "sad")
    clips = [bad[1], *good[:15], missing, *good[15:], copy, bad[0]]
    parallel = dataclasses.replace(config, jobs=2, store=str(tmp_path / "parallel"))
    steps: list[int] = []
    sets = ("mfcc", "whisper")
    reports = [
        extract(clips, config, sets),
        extract(clips, parallel, sets, on_progress=lambda done, _: steps.append(done)),
    ]
    assert steps[-1] == len(clips)
    one, other = ({**dataclasses.asdict(report), "seconds": 0.0} for report in reports)
    assert one == other
    assert (reports[1].extracted, reports[1].duplicates) == (26, 1)
    assert [failure.path for failure in reports[1].failed] == ["1.wav", "missing.wav", "0.wav"]
    for name in sets:
        here, there = stored(good, config, name), stored(good, parallel, name)
        assert len(here) == len(there) == 26
        for file, entry in here.items():
            np.testing.assert_array_equal(entry.values, there[file].values)
            assert entry.duration_s == there[file].duration_s
    assert extract(clips, parallel, sets).cached == 26


def test_extract_works_here_where_there_can_be_no_worker_processes(
    write_clip: WriteClip, config: Config, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("joblib.effective_n_jobs", lambda n: 1)
    clips = make_clips(write_clip, 30)

    assert extract(clips, dataclasses.replace(config, jobs=2), ("mfcc",)).extracted == 30
    assert len(decoded) == 30


def test_extract_ends_its_workers_when_the_progress_raises(write_clip: WriteClip, config: Config) -> None:
    def stopped(done: int, _: int) -> None:
        if done:
            raise KeyboardInterrupt

    clips = make_clips(write_clip, 60)
    with pytest.raises(KeyboardInterrupt):
        extract(clips, dataclasses.replace(config, jobs=2), ("mfcc",), stopped)

    assert multiprocessing.active_children() == []
    assert extract(clips, config, ("mfcc",)).cached >= 8
