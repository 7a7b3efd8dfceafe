"""Whatever the bytes of a model file are, `model_file.inspect` gives metadata or a ModelFileError.

python fuzz/fuzz_model_file.py -max_total_time=3600 build/fuzz/model_file
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import sys
import warnings
import zipfile
import zlib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["speechemo_cli"]):
    from speechemo_cli.errors import ModelFileError
    from speechemo_cli.models import model_file

_METADATA = "speechemo.json"
# Where the fuzzer keeps what it finds new: the smallest files, which are no archives any more.
_GOOD = Path(sys.argv[-1], "v1.keras")
# Beside them, not in a temporary folder: libFuzzer ends the process without a moment to remove one.
_MODEL = Path(sys.argv[-1]).resolve().parent / "under-test.keras"


def target(content: bytes) -> None:
    """Check a model file. Keras, which would take it as it is, must not be asked."""
    _MODEL.write_bytes(content)
    try:
        model_file.inspect(_MODEL)
    except ModelFileError as error:
        if not str(error).isprintable():
            raise ValueError(repr(str(error))) from None
    assert "keras" not in sys.modules


def mutate(content: bytes, max_size: int, seed: int) -> bytes:
    """Change a part of the archive and put its checksums right again, as an attacker would."""
    choice = random.Random(seed)  # noqa: S311
    if choice.random() < 0.2:
        return bytes(atheris.Mutate(content, max_size))
    if choice.random() < 0.5 and _GOOD.is_file():
        content = _GOOD.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, NotImplementedError, RuntimeError, EOFError):
        return bytes(atheris.Mutate(content, max_size))
    if not parts:
        return bytes(atheris.Mutate(content, max_size))
    name = choice.choice(sorted(parts))
    parts[name] = bytes(atheris.Mutate(parts[name], len(parts[name]) + 64))
    return _packed(parts)


def _packed(parts: dict[str, bytes]) -> bytes:
    try:
        metadata = json.loads(parts[_METADATA])
        metadata["members"] = {name: hashlib.sha256(parts[name]).hexdigest() for name in metadata["members"]}
        parts[_METADATA] = json.dumps(metadata).encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass  # no metadata any more
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")
        for name, part in parts.items():
            archive.writestr(name, part)
    return file.getvalue()


if __name__ == "__main__":
    atheris.Setup(sys.argv, target, custom_mutator=mutate)
    atheris.Fuzz()
