"""The model file: what goes in comes out, and what does not belong is refused before Keras is there."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import built

from speechemo_cli.config import Config, MfccConfig
from speechemo_cli.errors import AccessError, ModelFileError
from speechemo_cli.files import scratch_folder
from speechemo_cli.models import archive, model_file, training
from speechemo_cli.models.metadata import ModelMetadata

LABELS = ("neutral", "happy", "angry")


@pytest.fixture(scope="module")
def network():
    x = np.random.default_rng(0).normal(100, 20, (30, 40)).astype(np.float32)
    return built("v1", x, 3), x


def metadata(**changes: object) -> ModelMetadata:
    values = {
        "version": "v1",
        "labels": LABELS,
        "feature_set": "mfcc",
        "feature_version": 1,
        "config": Config(seed=3).to_dict(),
        "seed": 3,
        "epochs": 50,
        "data": {"train": ["a" * 64], "speakers": ["01"]},
        "results": {"test": {}},
    }
    return ModelMetadata(**{**values, **changes})


@pytest.fixture
def saved(network) -> Path:
    model_file.save(network[0], metadata(), Path("models/v1.keras"))
    return Path("models/v1.keras")


def test_a_loaded_model_answers_as_the_saved_one(network, saved: Path) -> None:
    model, x = network

    loaded, loaded_metadata = model_file.load(saved)

    assert np.array_equal(training.predict(loaded, x), training.predict(model, x))
    assert loaded_metadata == metadata()


def test_inspect_needs_no_keras(saved: Path) -> None:
    code = (
        "import sys; from speechemo_cli.models import model_file\n"
        f"metadata = model_file.inspect({str(saved)!r})\n"
        "print(metadata.version, metadata.labels[2], metadata.trained_on() == {'a' * 64})\n"
        "print(sorted({'keras', 'tensorflow', 'librosa', 'sklearn', 'scipy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "v1 angry True\n[]\n"


def test_the_features_of_the_training_win_over_those_of_the_run(network) -> None:
    trained_with = Config(mfcc=MfccConfig(hop_length=256))
    model_file.save(network[0], metadata(config=trained_with.to_dict()), Path("m.keras"))

    adopted = model_file.inspect("m.keras").adopt(Config(jobs=3, store="elsewhere"))

    assert adopted.mfcc.hop_length == 256
    assert (adopted.jobs, adopted.store) == (3, "elsewhere")


def test_a_failed_save_leaves_the_old_model(network, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AccessError, match=r"cannot write .*v1\.keras: no space left on device"):
        model_file.save(network[0], metadata(seed=9), saved)

    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["v1.keras"]


def rewrite(path: Path, change: dict[str, bytes | None]) -> None:
    """Replace, add or (None) remove members of an archive."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents.update(change)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            if content is not None:
                archive.writestr(name, content)


def document(path: Path) -> dict:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("speechemo.json"))


def test_what_is_not_a_model_file_is_refused() -> None:
    Path("text.keras").write_text("hello")
    Path("empty.keras").touch()
    Path("folder.keras").mkdir()
    Path("model.h5").write_bytes(b"\x89HDF")
    for name, reason in {
        "text.keras": "text.keras is damaged",
        "empty.keras": "empty.keras is damaged",
        "folder.keras": "folder.keras is not a model file",
        "model.h5": "model.h5 is not a model file, expected a file that ends in .keras",
        "nowhere.keras": "nowhere.keras: no such model file",
    }.items():
        with pytest.raises(ModelFileError, match=reason):
            model_file.inspect(name)


def test_a_keras_file_of_somebody_else_is_refused(network) -> None:
    network[0].save("foreign.keras")

    with pytest.raises(ModelFileError, match="was not written by speechemo"):
        model_file.inspect("foreign.keras")


def test_parts_that_do_not_belong_are_refused(saved: Path) -> None:
    rewrite(saved, {"assets/run.sh": b"#!/bin/sh"})

    with pytest.raises(ModelFileError, match=r"holds unexpected parts: assets/run\.sh"):
        model_file.inspect(saved)


@pytest.mark.parametrize("member", ["config.json", "metadata.json", "model.weights.h5"])
def test_a_part_that_was_exchanged_is_found(saved: Path, member: str) -> None:
    with zipfile.ZipFile(saved) as archive:
        content = bytearray(archive.read(member))
    content[len(content) // 2] ^= 1
    rewrite(saved, {member: bytes(content)})

    with pytest.raises(ModelFileError, match=f"{member} is not the one it was saved with"):
        model_file.inspect(saved)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_cut_file_is_refused(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])

    with pytest.raises(ModelFileError, match=r"is damaged .*Restore a copy or train again"):
        model_file.inspect(saved)


def test_flipped_bytes_are_refused_or_harmless(saved: Path, rng: np.random.Generator) -> None:
    content, whole = saved.read_bytes(), model_file.inspect(saved)
    refused = 0
    for at in rng.integers(0, len(content), 60):
        damaged = bytearray(content)
        damaged[at] ^= 0xFF
        saved.write_bytes(bytes(damaged))
        try:
            assert model_file.inspect(saved) == whole
        except ModelFileError:
            refused += 1
    # A zip archive has fields that nobody reads, so a few flips change nothing.
    assert refused > 50


def test_a_newer_format_asks_for_an_update(saved: Path) -> None:
    changed = {**document(saved), "format": 99}
    rewrite(saved, {"speechemo.json": json.dumps(changed).encode()})

    with pytest.raises(ModelFileError, match="written by a newer version of speechemo"):
        model_file.inspect(saved)


def test_other_feature_code_is_refused(saved: Path) -> None:
    rewrite(saved, {"speechemo.json": json.dumps({**document(saved), "feature_version": 0}).encode()})

    with pytest.raises(ModelFileError, match="expects version 0 of the mfcc features"):
        model_file.inspect(saved)


def test_a_network_of_another_age_is_refused(saved: Path) -> None:
    rewrite(saved, {"speechemo.json": json.dumps({**document(saved), "version": "v99"}).encode()})

    with pytest.raises(ModelFileError, match="holds a network of version 'v99', known are v1, v2, v3"):
        model_file.inspect(saved)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\xfe", b'{"format": 1, "members": 3}'])
def test_inspect_refuses_metadata_that_cannot_be_read(saved: Path, content: bytes) -> None:
    rewrite(saved, {"speechemo.json": content})

    with pytest.raises(ModelFileError, match="is damaged"):
        model_file.inspect(saved)


def test_labels_that_do_not_fit_the_network_are_refused(network) -> None:
    model_file.save(network[0], metadata(labels=(*LABELS, "sad")), Path("four.keras"))

    with pytest.raises(ModelFileError, match="/layers/dense/vars/0 is 1280x3, expected 1280x4"):
        model_file.load("four.keras")


def test_what_metadata_say_of_calibration_and_size_comes_back(network) -> None:
    model_file.save(network[0], metadata(temperature=1.75, parameters=1234), Path("m.keras"))

    received = model_file.inspect("m.keras")

    assert (received.temperature, received.parameters) == (1.75, 1234)


def test_load_takes_metadata_from_before_calibration(network, saved: Path) -> None:
    old = {key: value for key, value in document(saved).items() if key not in ("temperature", "parameters")}
    rewrite(saved, {"speechemo.json": json.dumps(old).encode()})

    loaded, loaded_metadata = model_file.load(saved)

    assert (loaded_metadata.temperature, loaded_metadata.parameters) == (None, 0)
    assert np.array_equal(training.predict(loaded, network[1]), training.predict(network[0], network[1]))


@pytest.mark.parametrize("name", ["version", "labels", "feature_set", "config", "seed"])
def test_inspect_refuses_metadata_that_lack_what_all_have(saved: Path, name: str) -> None:
    without = {key: value for key, value in document(saved).items() if key != name}
    rewrite(saved, {"speechemo.json": json.dumps(without).encode()})

    with pytest.raises(ModelFileError, match=r"is damaged: speechemo\.json does not fit"):
        model_file.inspect(saved)


def test_results_that_are_no_numbers_are_not_saved(network, saved: Path) -> None:
    before = saved.read_bytes()

    with pytest.raises(ModelFileError, match="the results of this training are not numbers"):
        model_file.save(network[0], metadata(results={"test": {}, "loss": float("nan")}), saved)

    assert saved.read_bytes() == before


def test_what_was_checked_is_loaded_whatever_happens_to_the_file_meanwhile(
    network, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assign = archive.assign

    def exchanged(*arguments: object) -> None:
        saved.write_bytes(b"of an attacker")
        assign(*arguments)

    monkeypatch.setattr(archive, "assign", exchanged)
    loaded, _ = model_file.load(saved)

    assert saved.read_bytes() == b"of an attacker"
    assert np.array_equal(training.predict(loaded, network[1]), training.predict(network[0], network[1]))
    assert not list(scratch_folder().rglob("*.h5"))


def test_metadata_know_the_hash_that_stands_for_its_file(network, saved: Path) -> None:
    received = model_file.inspect(saved)
    model_file.save(network[0], received, Path("again.keras"))
    rewrite(saved, {"speechemo.json": json.dumps({**document(saved), "epochs": 51}).encode()})

    with zipfile.ZipFile("again.keras") as archive:
        text = archive.read("speechemo.json")
    assert model_file.inspect("again.keras").sha256 == hashlib.sha256(text).hexdigest()
    assert b"sha256" not in text
    assert model_file.inspect(saved).sha256 != received.sha256
    assert model_file.read_metadata(saved).sha256 == model_file.inspect(saved).sha256


def test_a_file_does_not_say_itself_which_hash_it_has(saved: Path) -> None:
    rewrite(saved, {"speechemo.json": json.dumps({**document(saved), "sha256": "f" * 64}).encode()})

    assert model_file.inspect(saved).sha256 not in ("", "f" * 64)


def test_find_takes_a_path_or_a_version_or_else_the_packaged_model(saved: Path) -> None:
    assert model_file.find("some/where.keras", "models") == Path("some/where.keras")
    assert model_file.find("v1", "models") == saved
    assert model_file.find(None, "models") == model_file.PACKAGED


def test_find_takes_the_packaged_model_for_a_v3_that_was_not_trained() -> None:
    assert model_file.find("packaged", "models") == model_file.PACKAGED
    assert model_file.find("v3", "models") == model_file.PACKAGED
    # It is no v1 and no v2.
    assert model_file.find("v1", "models") == Path("models/v1.keras")
    assert model_file.find("v2", "models") == Path("models/v2.keras")


def test_an_own_v3_comes_before_the_packaged_one() -> None:
    Path("models").mkdir()
    Path("models/v3.keras").touch()

    assert model_file.find("v3", "models") == Path("models/v3.keras")
    assert model_file.find("packaged", "models") == model_file.PACKAGED


def test_the_packaged_model_is_shown_by_its_word() -> None:
    assert model_file.shown(model_file.PACKAGED) == "packaged"
    assert model_file.shown(Path("models/v3\n.keras")) == "models/v3\\n.keras"
