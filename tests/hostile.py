"""Hostile and damaged model files, each made of a good one. What an attacker can compute is right in them.

`CASES` maps the name of a case to how its file is made and to what `model_file.load` must say of it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

KERAS_MEMBERS = ("metadata.json", "config.json", "model.weights.h5")
Parts = dict[str, bytes]
Make = Callable[[Parts], bytes]

CASES: dict[str, tuple[Make, str]] = {}


def parts_of(path: Path) -> Parts:
    """Members of a model file by name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def hashed(parts: Parts) -> Parts:
    """Put the right hashes into the metadata."""
    metadata = json.loads(parts["speechemo.json"])
    metadata["members"] = {name: hashlib.sha256(parts[name]).hexdigest() for name in KERAS_MEMBERS}
    return {**parts, "speechemo.json": json.dumps(metadata).encode()}


def zipped(members: Iterable[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Make an archive; a name may come twice."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", compression) as archive:
        warnings.simplefilter("ignore")  # of a name that comes twice
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def packed(parts: Parts) -> bytes:
    """Make a model file whose metadata have the right hashes."""
    return zipped(hashed(parts).items())


def write_all(good: Path, folder: Path) -> None:
    """Write `NAME.keras` for every case."""
    parts = parts_of(good)
    for name, (make, _) in CASES.items():
        (folder / f"{name}.keras").write_bytes(make(dict(parts)))


# --- model.weights.h5 ----------------------------------------------------------------------------------


def with_weights(change: Callable[[h5py.File], object]) -> Make:
    """Change the HDF5 file in place."""

    def make(parts: Parts) -> bytes:
        file = io.BytesIO(parts["model.weights.h5"])
        with h5py.File(file, "r+") as weights:
            change(weights)
        return packed({**parts, "model.weights.h5": file.getvalue()})

    return make


KERNEL = "layers/dense/vars/0"


def replaced(**how: Any) -> Make:
    """Make the kernel of the Dense layer anew, in another way; `shape` stays unless given."""

    def change(weights: h5py.File) -> None:
        kernel = weights[KERNEL][()]
        del weights[KERNEL]
        weights.create_dataset(KERNEL, **{"shape": kernel.shape, "dtype": "f4", **how})

    return with_weights(change)


def _virtual(weights: h5py.File) -> None:
    shape = weights[KERNEL].shape
    del weights[KERNEL]
    layout = h5py.VirtualLayout(shape=shape, dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", shape=shape)
    weights.create_virtual_dataset(KERNEL, layout)


def _unknown_filter(weights: h5py.File) -> None:
    kernel = weights[KERNEL][()]
    del weights[KERNEL]
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk(kernel.shape)
    made.set_filter(307, h5py.h5z.FLAG_OPTIONAL)  # bzip2: HDF5 would look for a library of that filter
    space = h5py.h5s.create_simple(kernel.shape)
    h5py.h5d.create(weights.id, KERNEL.encode(), h5py.h5t.IEEE_F32LE, space, made)


def _linked(link: Any) -> Callable[[h5py.File], None]:
    def change(weights: h5py.File) -> None:
        del weights[KERNEL]
        weights[KERNEL] = link

    return change


_WEIGHTS: dict[str, tuple[Make, str]] = {
    "external_link": (
        with_weights(_linked(h5py.ExternalLink("/etc/hostname", "/"))),
        r"lie elsewhere \(ExternalLink\): /layers/dense/vars/0",
    ),
    "soft_link": (
        with_weights(_linked(h5py.SoftLink("/layers"))),
        r"lie elsewhere \(SoftLink\): /layers/dense/vars/0",
    ),
    "linked_group": (
        with_weights(lambda w: w.__setitem__("elsewhere", h5py.ExternalLink("x.h5", "/"))),
        r"lie elsewhere \(ExternalLink\): //elsewhere",
    ),
    "external_storage": (replaced(external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)]), "lie in other files"),
    "virtual": (with_weights(_virtual), "lie in other files"),
    "huge_shape": (replaced(shape=(10**7, 10**6)), r"declares 4\d+ bytes of weights and holds 0"),
    "huge_packed_shape": (
        replaced(shape=(10**6, 10**6), chunks=(1000, 1000), compression="gzip"),
        "are packed",
    ),
    "huge_filled_shape": (replaced(shape=(10**6, 10**6), chunks=(1000, 1000), fillvalue=1.0), "are packed"),
    "shuffled": (replaced(chunks=True, shuffle=True), "are packed"),
    "unknown_filter": (with_weights(_unknown_filter), "are packed"),
    "texts": (replaced(dtype=h5py.string_dtype()), "no plain numbers"),
    "references": (replaced(dtype=h5py.ref_dtype), "no plain numbers"),
    "records": (replaced(dtype=np.dtype([("a", "f4"), ("b", "f4")])), "no plain numbers"),
    "null_space": (replaced(shape=None, data=h5py.Empty("f4")), "no plain numbers"),
    "attributes": (
        with_weights(lambda w: w[KERNEL].attrs.__setitem__("dtype", "bfloat16")),
        "no plain numbers",
    ),
    "named_type": (with_weights(lambda w: w.__setitem__("type", np.dtype("f8"))), "are a Datatype"),
    "twice": (with_weights(lambda w: w.__setitem__("again", w[KERNEL])), "that a network does not have"),
    "group_in_itself": (
        with_weights(lambda w: w["layers"].__setitem__("root", w["/"])),
        "a network does not have",
    ),
    **{
        f"weight_of_{value}": (
            with_weights(lambda w, value=value: w[KERNEL].__setitem__((0, 0), value)),
            "has weights that are not finite: /layers/dense/vars/0",
        )
        for value in (float("nan"), float("inf"), float("-inf"))
    },
    "double_precision": (replaced(dtype="f8"), "no plain numbers"),
    "no_hdf5": (
        lambda parts: packed({**parts, "model.weights.h5": os.urandom(200_000)}),
        "h5 cannot be read",
    ),
    "cut_hdf5": (
        lambda parts: packed({**parts, "model.weights.h5": parts["model.weights.h5"][:-5000]}),
        "h5 cannot be read",
    ),
    "no_weights": (
        lambda parts: packed({**parts, "model.weights.h5": b""}),
        "h5 cannot be read",
    ),
}
CASES.update(_WEIGHTS)

# Plain arrays that are not those of the network: what these are is known when it is built.
UNLIKE: dict[str, tuple[Make, str]] = {
    "missing": (
        with_weights(lambda w: w.__delitem__(KERNEL)),
        "/layers/dense/vars/0 is nothing, expected 1280x3",
    ),
    "extra": (
        with_weights(lambda w: w.__setitem__("layers/dense/vars/2", np.zeros(3, np.float32))),
        "/layers/dense/vars/2 is 3, expected nothing",
    ),
    "of_another_shape": (
        replaced(data=np.zeros((3, 1280), np.float32), shape=(3, 1280)),
        "/layers/dense/vars/0 is 3x1280, expected 1280x3",
    ),
    "a_number": (
        replaced(data=np.float32(1), shape=()),
        "/layers/dense/vars/0 is a number, expected 1280x3",
    ),
    "under_another_name": (
        with_weights(lambda w: w.move(KERNEL, "layers/dense\n/vars/0")),
        r"/layers/dense\\n/vars/0 is 1280x3, expected nothing",
    ),
}


# --- speechemo.json ------------------------------------------------------------------------------------


def with_metadata(**values: Any) -> Make:
    """Change some metadata."""

    def make(parts: Parts) -> bytes:
        metadata = {**json.loads(parts["speechemo.json"]), **values}
        return packed({**parts, "speechemo.json": json.dumps(metadata).encode()})

    return make


def with_metadata_text(change: Callable[[str], str]) -> Make:
    """Change the metadata's text."""

    def make(parts: Parts) -> bytes:
        parts = hashed(parts)
        text = change(parts["speechemo.json"].decode())
        return zipped({**parts, "speechemo.json": text.encode()}.items())

    return make


def with_features(**values: Any) -> Make:
    """Change the features that the metadata asks for."""

    def make(parts: Parts) -> bytes:
        config = json.loads(parts["speechemo.json"])["config"]
        return with_metadata(config={**config, "mfcc": {**config["mfcc"], **values}})(parts)

    return make


_SCORES = {"n": 3, "accuracy": 0.5, "uar": 0.5}
_METADATA: dict[str, tuple[dict[str, Any], str]] = {
    "labels_as_text": ({"labels": "abc"}, "labels"),
    "labels_as_numbers": ({"labels": [1, 2, 3]}, "labels"),
    "label_of_lines": ({"labels": ["happy", "sad\nangry", "calm"]}, "labels"),
    "label_that_paints": ({"labels": ["happy", "\x1b[31msad", "calm"]}, "labels"),
    "label_of_nothing": ({"labels": ["happy", "", "calm"]}, "labels"),
    "label_twice": ({"labels": ["happy", "sad", "happy"]}, "labels"),
    "too_many_labels": ({"labels": [f"l{i}" for i in range(10**5)]}, "labels"),
    # As cells of a CSV they would look like one another, or like what is not a label.
    "label_with_blanks": ({"labels": ["happy", "happy ", "calm"]}, "labels"),
    **{f"label_{name}": ({"labels": ["happy", name, "calm"]}, "labels") for name in ("error", "path", "key")},
    "no_labels": ({"labels": None}, "labels"),
    "negative_seed": ({"seed": -1}, "seed"),
    "seed_as_text": ({"seed": "0"}, "seed"),
    "negative_epochs": ({"epochs": -5}, "epochs"),
    "true_epochs": ({"epochs": True}, "epochs"),
    "negative_parameters": ({"parameters": -1}, "parameters"),
    "huge_parameters": ({"parameters": 10**300}, "parameters"),
    "negative_temperature": ({"temperature": -1.0}, "temperature"),
    "temperature_as_text": ({"temperature": "1"}, "temperature"),
    "litert_as_path": ({"litert": "../other.tflite"}, "litert"),
    "negative_unlike": ({"unlike": -1.0}, "unlike"),
    "versions_as_list": ({"versions": ["keras"]}, "versions"),
    "versions_that_paint": ({"versions": {"keras": "\x1b]0;owned\x07"}}, r"versions\.keras"),
    "data_as_list": ({"data": []}, "data"),
    "clips_as_numbers": ({"data": {"train": [1]}}, r"data\.train"),
    "speakers_as_number": ({"data": {"speakers": 7}}, r"data\.speakers"),
    "counts_as_text": ({"data": {"clips": {"happy": 3}}}, r"data\.clips\.happy"),
    "results_as_text": ({"results": "very good"}, "results"),
    "accuracy_as_text": (
        {"results": {"test": {"seen_speakers": {**_SCORES, "accuracy": "high"}}}},
        r"results\.test\.seen_speakers\.accuracy",
    ),
    "half_measured": ({"results": {"cross_validated": {"accuracy": 1}}}, r"results\.cross_validated"),
    "config_as_list": ({"config": []}, "config"),
    "config_with_more": ({"config": {"evil": 1}}, "unknown key evil"),
    "config_out_of_range": ({"config": {"mfcc": {"n_fft": 10**9}}}, r"mfcc\.n_fft is 1000000000"),
    "config_of_another_kind": ({"config": {"mfcc": 5}}, "unknown key mfcc"),
    "unknown_features": ({"feature_set": "../mfcc"}, "feature_set"),
    "features_as_list": ({"feature_set": ["mfcc"]}, "feature_set"),
    "features_of_another_version": ({"feature_set": "whisper"}, "feature_set"),
    "negative_features": ({"feature_version": -1}, "feature_version"),
    "version_as_list": ({"version": ["v1"]}, "version"),
}
for _name, (_values, _reason) in _METADATA.items():
    CASES[_name] = (with_metadata(**_values), rf"is damaged: speechemo\.json does not fit \(.*{_reason}")

CASES.update(
    {
        "version_as_path": (with_metadata(version="../../v1"), r"holds a network of version '\.\./\.\./v1'"),
        "format_as_text": (with_metadata(format="1"), r"speechemo\.json cannot be read"),
        # Each would transform gigabytes for a clip of two seconds, or keep them.
        "features_of_every_sample": (
            with_features(sr=192_000, n_fft=65536, hop_length=1, n_mels=512),
            "asks for features that take too much: 192000 frames a second of 65536 samples and 512 numbers",
        ),
        "features_without_a_hop": (
            with_features(hop_length=1, n_fft=64),
            "asks for features that take too much: 22050 frames a second of 64 samples and 128 numbers",
        ),
        "features_of_many_filters": (
            with_features(n_fft=65536, hop_length=65536, n_mels=512),
            "asks for features that take too much: 0 frames a second of 65536 samples and 512 numbers",
        ),
        "newer_format": (with_metadata(format=10**9), "written by a newer version"),
        "nan_in_the_metadata": (with_metadata(temperature=float("nan")), r"speechemo\.json cannot be read"),
        "name_twice_in_the_metadata": (
            with_metadata_text(lambda text: text.replace('"labels"', '"labels": [], "labels"', 1)),
            r"speechemo\.json cannot be read",
        ),
        "deep_metadata": (
            with_metadata_text(lambda text: text[:-1] + ', "x": ' + "[" * 200_000 + "]" * 200_000 + "}"),
            r"speechemo\.json cannot be read",
        ),
        "metadata_as_list": (
            with_metadata_text(lambda text: f"[{text}]"),
            r"speechemo\.json cannot be read",
        ),
        "long_metadata": (
            with_metadata_text(lambda text: text + " " * 2**23),
            r"is too large: speechemo\.json would take \d+ bytes",
        ),
        "metadata_of_many_objects": (
            with_metadata_text(lambda text: text[:-1] + ', "x": [' + "{}," * 2**20 + "{}]}"),
            r"speechemo\.json cannot be read",
        ),
    }
)


# --- the archive ---------------------------------------------------------------------------------------


def with_more(*more: tuple[str, bytes]) -> Make:
    """Add members behind the four."""
    return lambda parts: zipped((*hashed(parts).items(), *more))


def with_directory(change: Callable[[bytearray, int], object], member: str = "model.weights.h5") -> Make:
    """Change the entry of a member in the archive's directory, which is what a reader goes by."""

    def make(parts: Parts) -> bytes:
        content = bytearray(packed(parts))
        at = content.rindex(member.encode()) - 46
        assert content[at : at + 4] == b"PK\1\2"
        change(content, at)
        return bytes(content)

    return make


def _declare(content: bytearray, at: int, n: int) -> None:
    struct.pack_into("<I", content, at + 24, n)


def _lying_bomb(parts: Parts) -> bytes:
    """Pack 64 MiB of zeros and declare as many bytes as the config had."""
    honest = len(parts["config.json"])
    content = bytearray(
        zipped({**hashed(parts), "config.json": bytes(64 * 2**20)}.items(), zipfile.ZIP_DEFLATED)
    )
    _declare(content, content.rindex(b"config.json") - 46, honest)
    return bytes(content)


def _dishonest_bomb(parts: Parts) -> bytes:
    """Pack 64 MiB of zeros, and declare that they take 2 GiB as they are packed."""
    content = bytearray(
        zipped(hashed({**parts, "model.weights.h5": bytes(64 * 2**20)}).items(), zipfile.ZIP_DEFLATED)
    )
    struct.pack_into("<I", content, content.rindex(b"model.weights.h5") - 46 + 20, 2**31 - 1)
    return bytes(content)


def _endless_directory(parts: Parts) -> bytes:
    return zipped((*hashed(parts).items(), *((f"part{i}", b"") for i in range(3000))))


CASES.update(
    {
        "climbing_member": (with_more(("../../owned", b"x")), r"unexpected parts: \.\./\.\./owned"),
        "absolute_member": (with_more(("/etc/owned", b"x")), "unexpected parts: /etc/owned"),
        "windows_member": (with_more(("..\\owned", b"x")), "unexpected parts: "),
        "asset": (with_more(("assets/vocabulary.txt", b"x")), "unexpected parts: assets/"),
        "folder_member": (with_more(("assets/", b"")), "unexpected parts: assets/"),
        "config_twice": (with_more(("config.json", b"{}")), r"holds config\.json more than once"),
        "metadata_twice": (with_more(("speechemo.json", b"{}")), r"holds speechemo\.json more than once"),
        "member_that_paints": (with_more(("\x1b[31m\n", b"")), r"unexpected parts: \\x1b\[31m\\n"),
        "no_metadata": (
            lambda parts: zipped((name, parts[name]) for name in KERAS_MEMBERS),
            "was not written by speechemo",
        ),
        "no_config": (
            lambda parts: zipped((name, part) for name, part in parts.items() if name != "config.json"),
            "unexpected parts: metadata",
        ),
        "wrong_hash": (
            lambda parts: zipped({**parts, "metadata.json": b"{}"}.items()),
            r"metadata\.json is not the one it was saved with",
        ),
        "packed_zeros": (
            lambda parts: zipped(
                hashed({**parts, "model.weights.h5": bytes(20 * 2**20)}).items(), zipfile.ZIP_DEFLATED
            ),
            r"packed too tightly: model\.weights\.h5 would grow from \d+ to 20971520 bytes",
        ),
        "gigabytes": (
            with_directory(lambda content, at: _declare(content, at, 4_000_000_000)),
            r"too large: model\.weights\.h5 would take 4000000000 bytes",
        ),
        "fewer_than_there_are": (with_directory(lambda content, at: _declare(content, at, 9)), "is damaged"),
        "more_than_there_are": (
            with_directory(lambda content, at: _declare(content, at, 190 * 2**20)),
            r"packed too tightly: model\.weights\.h5",
        ),
        "lying_bomb": (_lying_bomb, "is damaged .*CRC"),
        "dishonest_bomb": (_dishonest_bomb, "declares parts that are larger than the file"),
        "encrypted": (
            with_directory(lambda content, at: struct.pack_into("<H", content, at + 8, 1)),
            r"is encrypted: model\.weights\.h5",
        ),
        "bzip2": (
            lambda parts: zipped(hashed(parts).items(), zipfile.ZIP_BZIP2),
            "packed in a way that model files are not",
        ),
        "lzma": (
            lambda parts: zipped(hashed(parts).items(), zipfile.ZIP_LZMA),
            "packed in a way that model files are not",
        ),
        "wrong_offset": (
            with_directory(lambda content, at: struct.pack_into("<I", content, at + 42, 2**31)),
            "is damaged",
        ),
        "endless_directory": (_endless_directory, "holds more parts than a model file has"),
        "zip64": (
            lambda parts: packed(parts)[:-22] + b"PK\6\7" + bytes(16) + packed(parts)[-22:],
            "holds more parts than a model file has",
        ),
        "tail": (lambda parts: packed(parts) + b"tail", "does not end as an archive does"),
        "text": (lambda _parts: b"hello", "does not end as an archive does"),
        "nothing": (lambda _parts: b"", "does not end as an archive does"),
        "pickle": (lambda _parts: pickle.dumps({"a": 1}), "does not end as an archive does"),
        "hdf5": (lambda parts: parts["model.weights.h5"], "does not end as an archive does"),
    }
)
for _percent in range(5, 100, 5):
    CASES[f"cut_at_{_percent}"] = (
        lambda parts, share=_percent / 100: packed(parts)[: int(share * len(packed(parts)))],
        "is damaged",
    )


def flipped(content: bytes, n: int, seed: int = 0) -> Iterator[bytes]:
    """Yield copies with one byte flipped, each somewhere else."""
    for at in np.random.default_rng(seed).choice(len(content), n, replace=False):
        damaged = bytearray(content)
        damaged[at] ^= 0xFF
        yield bytes(damaged)


_NO_MODEL = r"is not a model file, expected a file that ends in \.keras"
ODD_FILES = {
    **dict.fromkeys(("folder.keras", "fifo.keras", "device.keras", "model.h5", "model.zip"), _NO_MODEL),
    **dict.fromkeys(
        ("nowhere.keras", "missing.keras", "model.zip/x.keras", "nul\0.keras"), "no such model file"
    ),
    "loop.keras": "cannot be read: too many levels of symbolic links",
    "sparse.keras": "is too large: 1099511627776 bytes, at most 209715200",
}


def write_odd_files(good: Path, folder: Path) -> None:
    """Write what is no regular file, or not of the right name or size."""
    (folder / "folder.keras").mkdir()
    (folder / "folder.keras" / "config.json").write_text("{}")
    os.mkfifo(folder / "fifo.keras")  # nobody writes to it, so that waiting for it would be for ever
    (folder / "device.keras").symlink_to("/dev/zero")
    (folder / "nowhere.keras").symlink_to("nothing")
    (folder / "loop.keras").symlink_to("loop.keras")
    (folder / "model.h5").write_bytes(parts_of(good)["model.weights.h5"])
    (folder / "model.zip").write_bytes(good.read_bytes())
    with (folder / "sparse.keras").open("wb") as file:
        file.truncate(2**40)
