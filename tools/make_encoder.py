"""Make features/whisper_encoder.tflite, which the features run, from features/whisper_encoder.npz.

The weights of its products are rounded to 8 bits, and so is what they are multiplied with when it runs. The
features of some clips by the new file are compared with those by the float network; unless 19 of 20 clips
correlate by 0.999, the old file stays and the exit code is 1. (The last block has numbers that grow by the
hundred in single frames, which no rounding keeps: with one clip in a hundred they lower it to 0.998.)

A file of another content gives other features: raise `whisper.VERSION`, put the SHA-256 into NOTICE and train
the packaged model anew.

    python tools/make_encoder.py [DATA]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.corpus import EMOTIONS
from speechemo_cli.corpus.synthetic import synthesise, voice_of
from speechemo_cli.export.frontend import packaged_encoder
from speechemo_cli.features import whisper
from speechemo_cli.files import atomic_path, sha256_file
from speechemo_cli.litert import LiteRtModel
from speechemo_cli.processes import quiet_stderr

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CLIPS = 48
_LEAST_CORRELATION = 0.999


def clips(folder: Path | None) -> list[NDArray[np.float32]]:
    """Read some clips from all over a folder, or synthesise voices."""
    if folder is None:
        rng = np.random.default_rng(0)
        return [synthesise(voice_of(actor, 0), one, 1, 1, rng) for actor in (1, 2) for one in EMOTIONS]
    import soundfile
    import soxr

    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".wav", ".flac"))
    chosen = paths[:: 1 + len(paths) // _CLIPS]
    read = (soundfile.read(path, dtype="float32", always_2d=True) for path in chosen)
    return [soxr.resample(y.mean(axis=1), sr, whisper.SR).astype(np.float32) for y, sr in read]


def write(network: Any, path: Path) -> None:
    """Write the network as LiteRT runs it, for one window at a time."""
    import tensorflow as tf

    window = tf.TensorSpec((1, *network.input_shape[1:]), tf.float32)
    network.export(
        path,
        format="litert",
        verbose=False,
        input_signature=[window],
        optimizations=[tf.lite.Optimize.DEFAULT],
    )


def main() -> None:
    """Make the file, compare, and put it in place."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path, help="folder of WAV or FLAC; else synthetic voices")
    sounds = clips(parser.parse_args().data)
    if not sounds:
        parser.error("the folder holds no WAV or FLAC file")
    network = packaged_encoder()
    with atomic_path(whisper.ENCODER) as temp:
        with quiet_stderr():
            write(network, temp)
        rounded = LiteRtModel(str(temp))
        before = time.perf_counter()
        for _ in range(20):
            rounded.run(np.zeros((1, whisper.WINDOW, whisper.N_MELS), np.float32))
        seconds = (time.perf_counter() - before) / 20
        exact, received = (
            np.concatenate([whisper.compute(y, encode) for y in sounds])
            for encode in (lambda x: np.asarray(network(x, training=False)), rounded.run)
        )
        correlations = _correlations(exact, received)
        mean, deviation = exact.mean(axis=0), exact.std(axis=0)
        standardised = _correlations((exact - mean) / deviation, (received - mean) / deviation)
        print(f"{temp.stat().st_size / 2**20:.1f} MiB, {1e3 * seconds:.1f} ms a window, {sha256_file(temp)}")
        for name, values in (("features", correlations), ("standardised", standardised)):
            least, median = min(values), np.median(values)
            print(f"{len(sounds)} clips, {name}: correlation at least {least:.5f}, median {median:.5f}")
        if np.quantile(correlations, 0.05) < _LEAST_CORRELATION:
            # Leaves the old file where it is.
            sys.exit(f"expected {_LEAST_CORRELATION} of 19 clips in 20; {whisper.ENCODER.name} stays")


def _correlations(a: NDArray[np.float32], b: NDArray[np.float32]) -> list[float]:
    return [float(np.corrcoef(one, other)[0, 1]) for one, other in zip(a, b, strict=True)]


if __name__ == "__main__":
    main()
