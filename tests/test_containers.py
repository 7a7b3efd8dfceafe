"""What a file is by its content, and what is said of one that is no audio."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from audio_cases import SR, decoded, encoded, in_16_bits, patched, voice
from test_decode import pages

from speechemo_cli.audio import reader
from speechemo_cli.audio.decode import AudioStream, _ogg_link
from speechemo_cli.audio.wav_header import Part
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *(
            (f"clip{s}", r"raw PCM\?\)\. Say its rate, --raw 16000, or .*s16le -ar 16000")
            for s in ("", ".pcm", ".raw")
        ),
        ("clip.sln", r"Say its rate, --raw 8000, or .*s16le -ar 8000"),
        ("clip.gsm", r"raw PCM\?\)\. Convert it: ffmpeg -f gsm -i FILE clip\.wav"),
        ("clip.g722", r"Convert it: ffmpeg -f g722"),
        ("clip.vox", r"Convert it: sox -t vox -r 8000 FILE clip\.wav"),
        *((f"clip{s}", r"Convert it: ffmpeg -f mulaw -ar 8000") for s in (".ulaw", ".ul", ".PCMU")),
        *((f"clip{s}", r"Convert it: ffmpeg -f alaw -ar 8000") for s in (".alaw", ".al", ".pcma")),
    ],
)
def test_refusal_names_samples_without_a_header_and_what_converts_them(name: str, reason: str) -> None:
    Path(name).write_bytes(in_16_bits(voice(2.0)).tobytes())

    with pytest.raises(AudioError, match=reason):
        reader.read(name, AudioConfig())


@pytest.mark.parametrize("f0", [80, 140, 250])
@pytest.mark.parametrize("sr", [8000, 16000, 48000])
def test_refusal_takes_a_voice_for_one_and_noise_for_none(
    f0: float, sr: int, rng: np.random.Generator
) -> None:
    with pytest.raises(AudioError, match=r"^no header \(raw PCM\?\)"):
        decoded(in_16_bits(voice(2.0, sr, f0)).tobytes())
    with pytest.raises(AudioError, match=r"^not audio that can be read"):
        decoded(rng.bytes(4 * sr))


def test_ogg_link_takes_streams_side_by_side_for_no_chain() -> None:
    whole = pages(encoded(voice(2.0), SR, "OGG", "VORBIS"))
    other = patched(whole[0], 14, "<I", 12345)
    side_by_side = b"".join([other, *whole[:-1], patched(whole[-1], 14, "<I", 12345), whole[-1]])

    assert _ogg_link(io.BytesIO(side_by_side), 0, len(side_by_side)) == (len(side_by_side), "")


@pytest.mark.parametrize("n", [2**31 - 1, 2**63 - 1, -1, -(2**63)])
def test_part_takes_any_place_that_a_header_sends_a_decoder_to(n: int) -> None:
    file = Part(io.BytesIO(b"12345"), 0, 5)
    for whence in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
        file.seek(2)
        file.seek(n, whence)
        assert file.tell() >= 0
        assert len(file.read(8)) <= 5


def test_part_ends_where_the_disk_fails() -> None:
    class Failing(io.BytesIO):
        def read(self, n: int | None = -1) -> bytes:
            if self.tell() > 20000:
                raise OSError(5, "Input/output error")
            return super().read(n)

    stream = AudioStream(Failing(encoded(voice())), AudioConfig())
    assert len(stream.read(10000)) == 10000
    assert len(stream.read(5000)) == 0
