"""Whatever the bytes of a recording are, `reader` gives samples or an AudioError.

python fuzz/fuzz_reader.py -max_total_time=3600 build/fuzz/reader
"""

from __future__ import annotations

import math
import random
import sys

import atheris
import seeds

with atheris.instrument_imports(include=["speechemo_cli"]):
    from speechemo_cli.audio import quality, reader
    from speechemo_cli.config import AudioConfig
    from speechemo_cli.errors import AudioError

# Short, so that a header that promises an hour costs no time.
CONFIG = AudioConfig(min_duration_s=0.04, max_duration_s=20.0)
# The decoders are not watched, so that the fuzzer would soon forget every format but the shortest.
SEEDS = sorted(seeds.recordings().values())
HEADER_BYTES = 200
EXTREMES = (0, 1, 0x7F, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)
_failures: list[object] = []
# What fails in a callback from C would be printed and forgotten.
sys.unraisablehook = _failures.append


def target(content: bytes) -> None:
    """Read each channel of a recording."""
    try:
        for recording in reader.read_channels("clip", CONFIG, "each", content):
            quality.check(recording.y, recording.sr, CONFIG)
            assert math.isfinite(float(recording.y.sum(dtype=float)))
            assert all(warning.isprintable() for warning in recording.warnings)
    except AudioError as error:
        if not str(error).isprintable():
            raise ValueError(repr(str(error))) from None
    assert not _failures, _failures


def mutate(content: bytes, max_size: int, seed: int) -> bytes:
    """Change some numbers in the header of a recording, or what the fuzzer likes."""
    choice = random.Random(seed)  # noqa: S311
    if choice.random() < 0.3:
        return bytes(atheris.Mutate(content, max_size))
    changed = bytearray(choice.choice(SEEDS))
    for _ in range(choice.randint(1, 5)):
        at, n, order = (
            choice.randrange(HEADER_BYTES),
            choice.choice((1, 2, 4)),
            choice.choice(("big", "little")),
        )
        value = choice.choice((*EXTREMES, choice.getrandbits(32))) % 256**n
        changed[at : at + n] = value.to_bytes(n, order)
    return bytes(changed[: choice.choice((max_size, choice.randint(1, len(changed))))])


if __name__ == "__main__":
    atheris.Setup(sys.argv, target, custom_mutator=mutate)
    atheris.Fuzz()
