"""Write what fuzzing starts from, in folders `reader` and `model_file`: python fuzz/seeds.py FOLDER."""

from __future__ import annotations

import io
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

SR = 8000
FORMATS = [
    *(
        ("WAV", subtype)
        for subtype in ("PCM_16", "PCM_U8", "PCM_24", "DOUBLE", "ULAW", "IMA_ADPCM", "GSM610")
    ),
    *(("WAVEX", "FLOAT"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "ALAW")),
    *(("CAF", "PCM_16"), ("NIST", "PCM_16"), ("WAV", "MS_ADPCM"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")),
    ("MP3", "MPEG_LAYER_III"),
]
# Codec and container, by FFmpeg.
MUXED = [
    *(("aac", container) for container in ("ipod", "mov", "adts", "mpegts", "flv", "matroska", "wav")),
    *(
        ("alac", "ipod"),
        ("alac", "caf"),
        ("flac", "ogg"),
        ("flac", "matroska"),
        ("tta", "tta"),
        ("wavpack", "wv"),
    ),
    *(("libopus", "ogg"), ("libopus", "webm"), ("libmp3lame", "avi"), ("libmp3lame", "wav"), ("mp2", "mpeg")),
    *(
        ("libopencore_amrnb", "amr"),
        ("libopencore_amrnb", "3gp"),
        ("wmav2", "asf"),
        ("ac3", "ac3"),
        ("ac3", "rm"),
    ),
    *(("eac3", "eac3"), ("g722", "wav"), ("g726", "wav"), ("adpcm_ima_qt", "aiff"), ("pcm_s16le", "w64")),
]
_RATES = {"mp2": 16000, "wmav2": 16000, "ac3": 48000, "eac3": 48000, "libopus": 48000}


def recordings() -> dict[str, bytes]:
    """Make a short noise in every format that is read."""
    y = 0.1 * np.random.default_rng(0).standard_normal((SR // 4, 2))
    made = {}
    for container, subtype in FORMATS:
        file = io.BytesIO()
        channels = 1 if subtype == "GSM610" else 2
        soundfile.write(file, y[:, :channels], SR, format=container, subtype=subtype)
        made[f"{container}-{subtype}"] = file.getvalue()
    made |= {f"{codec}.{container}": _muxed(codec, container) for codec, container in MUXED}
    return made | {"tagged-MP3": b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + made["MP3-MPEG_LAYER_III"]}


def _muxed(codec: str, container: str) -> bytes:
    sr = _RATES.get(codec, SR)
    y = (3000 * np.random.default_rng(0).standard_normal((1, sr // 4))).astype(np.int16)
    with tempfile.NamedTemporaryFile() as file:
        with av.open(file.name, "w", format=container) as out:
            stream = out.add_stream(codec, sr, layout="mono")
            if codec == "wmav2":
                stream.bit_rate = 32000
            frame = av.AudioFrame.from_ndarray(y, "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = sr, 0, Fraction(1, sr)
            out.mux(stream.encode(frame) + stream.encode(None))
        return Path(file.name).read_bytes()


def write_recordings(folder: Path) -> None:
    """Write them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in recordings().items():
        (folder / name).write_bytes(content)


def write_models(folder: Path) -> None:
    """Write a model that was never trained."""
    from speechemo_cli.config import Config
    from speechemo_cli.corpus import EMOTIONS
    from speechemo_cli.features import FEATURE_SETS
    from speechemo_cli.models import model_file, version_module
    from speechemo_cli.models.metadata import ModelMetadata

    folder.mkdir(parents=True, exist_ok=True)
    module, config = version_module("v1"), Config()
    features = FEATURE_SETS[module.PRESET.feature_set]
    network = module.build((features.dim(config),), len(EMOTIONS), module.PRESET)
    metadata = ModelMetadata(
        "v1", EMOTIONS, features.name, features.version, config.to_dict(), seed=0, epochs=1
    )
    model_file.save(network, metadata, folder / "v1.keras")


if __name__ == "__main__":
    write_recordings(Path(sys.argv[1], "reader"))
    write_models(Path(sys.argv[1], "model_file"))
