"""Hostile and damaged model files, each made of a good one. What an attacker can compute is right in them.

`CASES` maps the name of a case to how its file is made and to a part of the message of `model_file.load`,
by which the tables that it is filled from have the cases.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
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


def _add(cases: dict[str, Make | dict[str, Make]]) -> None:
    """Add cases by a part of their message; the only one of a kind is named by it."""
    for message, makes in cases.items():
        named = makes if isinstance(makes, dict) else {re.sub(r"\W+", "_", message): makes}
        CASES.update({name: (make, message) for name, make in named.items()})


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


def with_part(name: str, change: Callable[[bytes], bytes]) -> Make:
    """Change a part of the four; the hashes are those of what is there then."""

    def make(parts: Parts) -> bytes:
        parts = hashed(parts) if name == "speechemo.json" else parts
        parts = {**parts, name: change(parts[name])}
        return zipped(parts.items()) if name == "speechemo.json" else packed(parts)

    return make


# --- model.weights.h5 ----------------------------------------------------------------------------------


def with_weights(change: Callable[[h5py.File], object]) -> Make:
    """Change the HDF5 file in place."""

    def changed(content: bytes) -> bytes:
        file = io.BytesIO(content)
        with h5py.File(file, "r+") as weights:
            change(weights)
        return file.getvalue()

    return with_part("model.weights.h5", changed)


KERNEL = "layers/dense/vars/0"


def remade(make: Callable[[h5py.File, tuple[int, ...]], object]) -> Make:
    """Make the kernel of the Dense layer anew, in another way."""

    def change(weights: h5py.File) -> None:
        shape = weights[KERNEL].shape
        del weights[KERNEL]
        make(weights, shape)

    return with_weights(change)


def replaced(**how: Any) -> Make:
    """Make the kernel anew with other settings; shape and type stay unless given."""
    return remade(lambda w, shape: w.create_dataset(KERNEL, **{"shape": shape, "dtype": "f4", **how}))


def linked(link: Any) -> Make:
    return remade(lambda w, _: w.__setitem__(KERNEL, link))


def _virtual(weights: h5py.File, shape: tuple[int, ...]) -> None:
    layout = h5py.VirtualLayout(shape=shape, dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", shape=shape)
    weights.create_virtual_dataset(KERNEL, layout)


_add(
    {
        r"lie elsewhere \(ExternalLink\): /layers/dense/vars/0": linked(
            h5py.ExternalLink("/etc/hostname", "/")
        ),
        r"lie elsewhere \(SoftLink\): /layers/dense/vars/0": linked(h5py.SoftLink("/layers")),
        "lie in other files": {
            "external_storage": replaced(external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)]),
            "virtual": remade(_virtual),
        },
        r"declares 4\d+ bytes of weights and holds 0": replaced(shape=(10**7, 10**6)),
        "are packed": {
            "huge_filled_shape": replaced(shape=(10**6, 10**6), chunks=(1000, 1000), fillvalue=1.0),
            "shuffled": replaced(chunks=True, shuffle=True),
        },
        "no plain numbers": {
            "texts": replaced(dtype=h5py.string_dtype()),
            "null_space": replaced(shape=None, data=h5py.Empty("f4")),
            "attributes": with_weights(lambda w: w[KERNEL].attrs.__setitem__("dtype", "bfloat16")),
            "double_precision": replaced(dtype="f8"),
        },
        "are a Datatype": with_weights(lambda w: w.__setitem__("type", np.dtype("f8"))),
        "that a network does not have": {
            "twice": with_weights(lambda w: w.__setitem__("again", w[KERNEL])),
            "group_in_itself": with_weights(lambda w: w["layers"].__setitem__("root", w["/"])),
        },
        "has weights that are not finite: /layers/dense/vars/0": {
            f"weight_of_{value}": with_weights(lambda w, value=value: w[KERNEL].__setitem__((0, 0), value))
            for value in (float("nan"), float("inf"), float("-inf"))
        },
        "h5 cannot be read": {
            "no_hdf5": with_part("model.weights.h5", lambda _: os.urandom(200_000)),
            "cut_hdf5": with_part("model.weights.h5", lambda weights: weights[:-5000]),
            "no_weights": with_part("model.weights.h5", lambda _: b""),
        },
    }
)


# --- speechemo.json ------------------------------------------------------------------------------------


def with_text(change: Callable[[str], str]) -> Make:
    """Change the metadata's text."""
    return with_part("speechemo.json", lambda content: change(content.decode()).encode())


def with_document(change: Callable[[dict[str, Any]], object]) -> Make:
    """Change the metadata in place."""

    def changed(text: str) -> str:
        document = json.loads(text)
        change(document)
        return json.dumps(document)

    return with_text(changed)


def with_metadata(**values: Any) -> Make:
    return with_document(lambda document: document.update(values))


def with_features(**values: Any) -> Make:
    return with_document(lambda document: document["config"]["mfcc"].update(values))


# Values of the wrong kind, by where they are.
_WRONG: dict[str, list[Any]] = {
    "labels": [
        *("abc", [1, 2, 3], None, [f"l{i}" for i in range(10**5)]),
        *(["happy", name, "calm"] for name in ("sad\nangry", "\x1b[31msad", "", "happy")),
        # As cells of a CSV they would look like one another, or like what is not a label.
        *(["happy", name, "calm"] for name in ("happy ", "error", "path", "key")),
    ],
    "seed": [-1, "0"],
    "epochs": [-5, True],
    "parameters": [-1, 10**300],
    "temperature": [-1.0, "1"],
    "litert": ["../other.tflite"],
    "unlike": [-1.0],
    "versions": [["keras"]],
    "versions.keras": ["\x1b]0;owned\x07"],
    "data": [[]],
    "data.train": [[1]],
    "data.speakers": [7],
    "data.clips.happy": [3],
    "results": ["very good"],
    "results.test.seen_speakers.n": ["three"],
    "results.cross_validated.accuracy": [1],
    "config": [[]],
    "feature_set": ["../mfcc", ["mfcc"], "whisper"],
    "feature_version": [-1],
    "version": [["v1"]],
}
_MISFIT = r"is damaged: speechemo\.json does not fit \("
for _where, _values in _WRONG.items():
    for _i, _value in enumerate(_values):
        _first, *_inner = _where.split(".")
        for _name in reversed(_inner):
            _value = {_name: _value}
        CASES[f"{_where}_{_i}"] = (with_metadata(**{_first: _value}), _MISFIT + re.escape(_where) + r"\)")
_UNREADABLE: dict[str, Callable[[str], str]] = {
    "nothing": lambda _: "",
    "empty": lambda _: "{}",
    "other": lambda _: '{"format": 1, "members": 3}',
    "list": lambda text: f"[{text}]",
    "name_twice": lambda text: text.replace('"labels"', '"labels": [], "labels"', 1),
    "nan": lambda text: text[:-1] + ', "x": NaN}',
    "deep": lambda text: text[:-1] + ', "x": ' + "[" * 200_000 + "]" * 200_000 + "}",
    "many_objects": lambda text: text[:-1] + ', "x": [' + "{}," * 2**20 + "{}]}",
}
_add(
    {
        r"speechemo\.json cannot be read": {
            **{f"metadata_of_{name}": with_text(change) for name, change in _UNREADABLE.items()},
            "binary_metadata": with_part("speechemo.json", lambda _: b"\xff\xfe"),
            "format_as_text": with_metadata(format="1"),
        },
        _MISFIT: {
            f"no_{name}": with_document(lambda document, name=name: document.pop(name))
            for name in ("version", "labels", "feature_set", "config", "seed")
        },
        _MISFIT + r"results\.cross_validated\.accuracy\.ci95": {
            "half_an_interval": with_metadata(
                results={"cross_validated": {"accuracy": {"pooled": 0.5, "ci95": [0.5]}}}
            )
        },
        _MISFIT + "model file: unknown key evil": with_metadata(config={"evil": 1}),
        _MISFIT + "model file: unknown key mfcc": with_metadata(config={"mfcc": 5}),
        _MISFIT + r"model file: mfcc\.n_fft is 1000000000": with_features(n_fft=10**9),
        r"holds a network of version '\.\./\.\./v1', known are v1, v2, v3": with_metadata(version="../../v1"),
        "expects version 0 of the mfcc features": with_metadata(feature_version=0),
        # Each would transform gigabytes for a clip of two seconds, or keep them.
        "features that take too much: 192000 frames a second of 65536 samples and 512 numbers": with_features(
            sr=192_000, n_fft=65536, hop_length=1, n_mels=512
        ),
        "features that take too much: 22050 frames a second of 64 samples and 128 numbers": with_features(
            hop_length=1, n_fft=64
        ),
        "features that take too much: 0 frames a second of 65536 samples and 512 numbers": with_features(
            n_fft=65536, hop_length=65536, n_mels=512
        ),
        "written by a newer version of speechemo": with_metadata(format=10**9),
        r"is too large: speechemo\.json would take \d+ bytes": with_text(lambda text: text + " " * 2**23),
    }
)

# Plain arrays that are not those of the network, by a part of the message.
UNLIKE: dict[str, Make] = {
    "vars/0 is nothing, expected 1280x3": with_weights(lambda w: w.__delitem__(KERNEL)),
    "vars/2 is 3, expected nothing": with_weights(
        lambda w: w.__setitem__("layers/dense/vars/2", np.zeros(3, np.float32))
    ),
    "vars/0 is 3x1280, expected 1280x3": replaced(data=np.zeros((3, 1280), np.float32), shape=(3, 1280)),
    "vars/0 is 1280x3, expected 1280x4": with_metadata(labels=["happy", "sad", "angry", "calm"]),
    "vars/0 is a number, expected 1280x3": replaced(data=np.float32(1), shape=()),
    r"\\n/vars/0 is 1280x3, expected nothing": with_weights(
        lambda w: w.move(KERNEL, "layers/dense\n/vars/0")
    ),
}


# --- the archive ---------------------------------------------------------------------------------------


def with_more(*more: tuple[str, bytes]) -> Make:
    """Add members behind the four."""
    return lambda parts: zipped((*hashed(parts).items(), *more))


# Where a field is in a member's entry of the directory, which is what a reader goes by.
FLAGS_AND_METHOD, PACKED_BYTES, BYTES, OFFSET = 8, 20, 24, 42


def declaring(field: int, value: int, member: str = "model.weights.h5", make: Make = packed) -> Make:
    """Write another value into the directory of an archive."""

    def changed(parts: Parts) -> bytes:
        content = bytearray(make(parts))
        at = content.rindex(member.encode()) - 46
        assert content[at : at + 4] == b"PK\1\2"
        struct.pack_into("<I", content, at + field, value)
        return bytes(content)

    return changed


def bomb(member: str, n_bytes: int) -> Make:
    """Pack so many zeros."""
    return lambda parts: zipped(hashed({**parts, member: bytes(n_bytes)}).items(), zipfile.ZIP_DEFLATED)


_add(
    {
        "holds unexpected parts: ": {
            f"member_{i}": with_more((name, b"x"))
            for i, name in enumerate(
                ("../../owned", "/etc/owned", "..\\owned", "assets/run.sh", "assets/", "\x1b[31m\n")
            )
        },
        "unexpected parts: metadata": lambda parts: zipped(
            (k, v) for k, v in parts.items() if k != "config.json"
        ),
        "was not written by speechemo": lambda parts: zipped((name, parts[name]) for name in KERAS_MEMBERS),
        **{
            f"holds {re.escape(name)} more than once": {f"{name}_twice": with_more((name, b"{}"))}
            for name in ("config.json", "speechemo.json")
        },
        **{
            f"{name} is not the one it was saved with": {
                f"changed_{name}": lambda parts, name=name: zipped(
                    {**hashed(parts), name: parts[name] + b" "}.items()
                )
            }
            for name in KERAS_MEMBERS
        },
        r"packed too tightly: model\.weights\.h5 would grow from \d+ to 20971520 bytes": bomb(
            "model.weights.h5", 20 * 2**20
        ),
        r"packed too tightly: model\.weights\.h5": declaring(BYTES, 190 * 2**20),
        r"too large: model\.weights\.h5 would take 4000000000 bytes": declaring(BYTES, 4_000_000_000),
        # As many bytes are declared as a config may have.
        "is damaged .*CRC": declaring(BYTES, 5000, "config.json", bomb("config.json", 64 * 2**20)),
        "declares parts that are larger than the file": declaring(
            PACKED_BYTES, 2**31 - 1, make=bomb("model.weights.h5", 64 * 2**20)
        ),
        r"is encrypted: model\.weights\.h5": declaring(FLAGS_AND_METHOD, 1),
        "packed in a way that model files are not": {
            "bzip2": lambda parts: zipped(hashed(parts).items(), zipfile.ZIP_BZIP2),
            "lzma": lambda parts: zipped(hashed(parts).items(), zipfile.ZIP_LZMA),
        },
        "holds more parts than a model file has": {
            "endless_directory": with_more(*((f"part{i}", b"") for i in range(3000))),
            "zip64": lambda parts: packed(parts)[:-22] + b"PK\6\7" + bytes(16) + packed(parts)[-22:],
        },
        "does not end as an archive does": {
            "tail": lambda parts: packed(parts) + b"tail",
            "text": lambda _: b"hello",
            "nothing": lambda _: b"",
            "pickle": lambda _: pickle.dumps({"a": 1}),
            "hdf5": lambda parts: parts["model.weights.h5"],
        },
        "is damaged .*Restore a copy or train again": {
            "fewer_than_there_are": declaring(BYTES, 9),
            "wrong_offset": declaring(OFFSET, 2**31),
            **{
                f"cut_at_{percent}": lambda parts, percent=percent: packed(parts)[
                    : int(percent / 100 * len(packed(parts)))
                ]
                for percent in (5, 35, 65, 95, 99.9)
            },
        },
    }
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


# What `model_file.load` says of each file that `write_all` makes.
MESSAGES = {
    f"{name}.keras": rf"^{name}\.keras .*{message}" for name, (_, message) in CASES.items()
} | ODD_FILES


def write_all(good: Path, folder: Path) -> None:
    """Write `NAME.keras` for every case, and what is no regular file or not of the right name or size."""
    for name, (make, _) in CASES.items():
        (folder / f"{name}.keras").write_bytes(make(parts_of(good)))
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
