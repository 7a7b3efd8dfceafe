"""Recordings as they come from strangers: one of each kind, with what a user must be told of it."""

from __future__ import annotations

import io
import os
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from conftest import noisy

from speechemo_cli.audio import reader
from speechemo_cli.audio.reader import Recording, open_blocks
from speechemo_cli.config import AudioConfig

SR = 16000
TAG = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)
Make = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """A file and what is to be said of it. Reasons and warnings are whole, as regular expressions."""

    name: str  # with the suffix of an audio format, so that a folder's scan finds it
    make: Make  # writes it to the path it is given
    refused: str | None = None
    warned: tuple[str, ...] = ()
    quality: tuple[str, ...] = ()  # how further warnings of `predict` begin


def voice(seconds: float = 1.2, sr: int = SR, f0: float = 140.0) -> np.ndarray:
    return noisy(np.random.default_rng(440), seconds, sr, f0)


def encoded(y: np.ndarray, sr: int = SR, container: str = "WAV", subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, y, sr, format=container, subtype=subtype)
    return buffer.getvalue()


def decoded(content: bytes, config: AudioConfig | None = None) -> Recording:
    """Decode what a file holds."""
    (recording,) = reader.read_channels("clip", config or AudioConfig(), content=content)
    return recording


def read_both(content: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a file whole and in blocks, which is to be the same; return samples and warnings."""
    path = Path("clip")
    path.write_bytes(content)
    (recording,) = reader.read_channels(path, AudioConfig())
    with open_blocks(path, recording.sr, AudioConfig()) as blocks:
        joined = np.concatenate(list(blocks))
    np.testing.assert_allclose(joined, recording.y, atol=1e-6)
    assert blocks.warnings == recording.warnings
    return recording.y, recording.warnings


def check_read(content: bytes, expected: np.ndarray, *warned: str, atol: float = 0.0) -> None:
    """Read a file whole and in blocks, for these samples and these warnings."""
    y, warnings = read_both(content)
    np.testing.assert_allclose(y, expected, rtol=0, atol=atol)
    assert warnings == warned


def by_libsndfile(content: bytes) -> np.ndarray:
    """Decode with libsndfile; Opus with FFmpeg, which keeps its rate of 48 kHz."""
    if b"OpusHead" in content:
        with av.open(io.BytesIO(content), format="ogg") as file:
            return np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    y, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    return y


_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
# Where FFmpeg's encoder would take eight bits of the sixteen, or none.
_SAMPLE_FORMATS = {"wavpack": "s16p", "tta": "s16"}


def muxed(
    *tracks: np.ndarray, sr: int = SR, codec: str, container: str, options: Any = None, bit_rate: int = 0
) -> bytes:
    """Encode sound tracks [shape=(n,) or (n, channels)] of 16 bits with FFmpeg; without any, a video."""
    with tempfile.NamedTemporaryFile() as file:
        with av.open(file.name, "w", format=container, options=options or {}) as out:
            streams = [out.add_stream(codec, sr, layout=_LAYOUTS[y[0].size]) for y in tracks]
            for stream, y in zip(streams, tracks, strict=True):
                if codec in _SAMPLE_FORMATS:
                    stream.codec_context.format = _SAMPLE_FORMATS[codec]
                if bit_rate:
                    stream.bit_rate = bit_rate
                layout = stream.codec_context.layout
                frame = av.AudioFrame.from_ndarray(in_16_bits(y).reshape(1, -1), "s16", layout)
                frame.sample_rate, frame.pts, frame.time_base = sr, 0, Fraction(1, sr)
                out.mux(stream.encode(frame) + stream.encode(None))
            if not tracks:
                video = out.add_stream(codec, 10, width=64, height=64, pix_fmt="yuv420p")
                frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
                out.mux(video.encode(frame) + video.encode(None))
        return Path(file.name).read_bytes()


def in_16_bits(y: np.ndarray) -> np.ndarray:
    return np.round(32767 * np.clip(y, -1, 1)).astype(np.int16)


def patched(content: bytes, at: int, kind: str, value: int) -> bytes:
    """Replace a number in a header."""
    field = struct.pack(kind, value)
    return content[:at] + field + content[at + len(field) :]


def sound_sizes(content: bytes, size: int) -> bytes:
    """Let a header count so many bytes of samples; with -1 it does not know how many there are."""
    if content.startswith(b".snd"):
        return patched(content, 8, ">I", size % 2**32)
    if content.startswith(b"FORM"):
        return patched(content, content.index(b"SSND") + 4, ">I", size + 8 if size > 0 else size % 2**32)
    if content.startswith(b"caff"):
        return patched(content, content.index(b"data") + 4, ">q", size + 4 if size > 0 else size)
    if content.startswith(b"riff"):
        return patched(content, content.index(b"data\xf3") + 16, "<q", size + 24 if size > 0 else size)
    if content.startswith(b"RF64"):
        return patched(content, 28, "<q", size)
    order = ">" if content.startswith(b"RIFX") else "<"
    return patched(content, content.index(b"data") + 4, order + "I", size % 2**32)


def with_comment(wav: bytes, text: str, *, after: bool) -> bytes:
    """Put a comment into a WAV file, before its samples or after them."""
    note = text.encode() + bytes(len(text) % 2)
    info = b"INFOICMT" + struct.pack("<I", len(note)) + note
    chunk = b"LIST" + struct.pack("<I", len(info)) + info
    at = len(wav) if after else wav.index(b"data")
    return patched(wav[:at] + chunk + wav[at:], 4, "<I", len(wav) + len(chunk) - 8)


def mp3(y: np.ndarray, sr: int = SR, mode: str = "VARIABLE") -> bytes:
    """Encode as MP3, with a first frame that counts the others."""
    buffer = io.BytesIO()
    soundfile.write(
        buffer, y, sr, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode=mode, compression_level=0.5
    )
    return buffer.getvalue()


def without_count(content: bytes) -> bytes:
    """Take the first frame out, up to the next that begins as it does."""
    return content[content.index(content[:2], 4) :]


def flac_promising(frames: int, channels: int, sr: int) -> bytes:
    """Encode next to nothing as FLAC, and raise the 36 bits that say how many frames there are."""
    content = encoded(np.zeros((sr // 10, channels)), sr, "FLAC")
    (word,) = struct.unpack_from(">Q", content, 18)
    return patched(content, 18, ">Q", word >> 36 << 36 | frames)


def _saved(content: bytes) -> Make:
    return lambda path: path.write_bytes(content)


def _clip(y: np.ndarray, sr: int = SR, subtype: str = "PCM_16", container: str = "WAV") -> Make:
    return lambda path: path.write_bytes(encoded(y, sr, container, subtype))


def _sparse(content: bytes, size: int) -> Make:
    """Write a file of any size that takes no room."""

    def make(path: Path) -> None:
        path.write_bytes(content)
        os.truncate(path, size)

    return make


def _with(y: np.ndarray, at_s: float, value: float) -> np.ndarray:
    changed = y.copy()
    changed[round(at_s * SR)] = value
    return changed


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _channels(n: int, sr: int = SR) -> np.ndarray:
    return np.stack([voice(1.2, sr, 120.0 + 10.0 * i) for i in range(n)], axis=1)


Y = voice()
WAV = encoded(Y)
NOT_RECOGNISED = r"not audio that can be read \(format not recognised\)"
TRUNCATED = r"truncated: the header promises 1\.2\d? s, the file holds 0\.\d\d s"
STALE = r"stale header: it promises 0\.30 s, the file holds 1\.20 s, all of which is read"
CUT_STREAM = r"truncated: the file ends before its Ogg stream does, after \d\.\d\d s"
PAGES = encoded(voice(3.0), SR, "OGG", "VORBIS")
DAMAGED = r"damaged: 1\.\d\d of 4\.00 s can be decoded"
SECOND = "not all read: 2 sound tracks, this is number 2; --track takes another"
CUT_PAGE = r"truncated: the file ends within a page of its Ogg stream, after \d\.\d\d s"

AAC = muxed(Y, codec="aac", container="ipod")
PHONE = muxed(voice(1.2, 8000), sr=8000, codec="libopencore_amrnb", container="amr")
BROWSER = muxed(voice(3.0), codec="libopus", container="webm")
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"

NO_AUDIO = [
    Case("zero-length.wav", _saved(b""), "empty file"),
    Case(
        "text.wav", _saved(b"Dear all,\nplease find attached\n"), r"not audio that can be read \(it is text\)"
    ),
    Case("page.mp3", _saved(b"<!DOCTYPE html>\n<html>"), r"not audio that can be read \(it is text\)"),
    Case("silent-film.mp4", _saved(muxed(codec="mpeg4", container="mp4")), "has no sound track"),
    Case("without-moov.m4a", _saved(AAC[: AAC.index(b"moov") - 4]), r"not audio that can be read \(.*\)"),
    Case(
        "second-chunk.webm",
        _saved(BROWSER[BROWSER.index(b"\x1fC\xb6u") :]),
        r"not audio .* \(it is a WebM recording without its beginning\)\. Join its parts: .*",
    ),
    Case(
        "without-packets.wav",
        _saved(muxed(voice(3.0), codec="aac", container="wav")),
        r"damaged: \d of \d parts of its sound cannot be decoded",
    ),
    Case("playlist.m4a", _saved(b"\0\0\0\x1cftypM4A \nffconcat version 1.0\nfile '/etc/passwd'\n"), ".*"),
    Case("no-fmt.wav", _saved(WAV[:12]), r"not audio that can be read \(.*\)"),
    Case("byte.wav", _saved(b"\0"), NOT_RECOGNISED),
    Case("garbage.wav", _saved(np.random.default_rng(0).bytes(5000)), NOT_RECOGNISED),
    Case("zeros.wav", _saved(bytes(5000)), NOT_RECOGNISED),
    Case("magic-only.wav", _saved(b"RIFF"), r"not audio that can be read \(it is text\)"),
    Case("other-riff.wav", _saved(b"RIFF\x10\0\0\0CDDA" + bytes(100)), NOT_RECOGNISED),
    Case("header-only.wav", _saved(WAV[:44]), "no samples"),
    Case("cut-in-fmt.wav", _saved(WAV[:30]), r"not audio that can be read \(.*\)"),
    Case("no-channels.wav", _saved(patched(WAV, 22, "<H", 0)), r"not audio that can be read \(.*\)"),
    Case("no-frame.mp3", _saved(b"\xff\xfb\x90\x64" + bytes(400)), NOT_RECOGNISED),
    Case("tag-before-nothing.mp3", _saved(b"ID3\x04\0\0\0\0\0\x0a" + bytes(400)), NOT_RECOGNISED),
    # Formats that nobody records voices in: their decoders never see a byte.
    *(
        Case(f"format-{name}.wav", _saved(encoded(Y, container=name, subtype=subtype)), NOT_RECOGNISED)
        for name, subtype in (("PAF", "PCM_16"), ("HTK", "PCM_16"))
    ),
    Case("format-MAT5.wav", _saved(encoded(Y, container="MAT5")), r"not audio .* \(it is a MATLAB file\)"),
    Case("format-VOC.wav", _saved(encoded(Y, container="VOC")), r"not audio .* \(it is a VOC file\)\. .*"),
    Case("lfs.wav", _saved(LFS), r"not audio .* \(it is a Git LFS pointer\)\. Run git lfs pull"),
    Case(
        "raw.wav", _saved(WAV[44:]), r"no header \(raw PCM\?\)\. Say its rate, --raw 16000, or convert it: .*"
    ),
]
SAMPLES = [
    Case("no-samples.wav", _clip(np.zeros(0)), "no samples"),
    Case("no-pairs.wav", _clip(np.zeros((0, 2))), "no samples"),
    Case("one-sample.wav", _clip(Y[5000:5001]), r"0\.000 s is shorter than 0\.2 s"),
    Case("199.9-ms.wav", _clip(Y[5000:8199]), r"0\.1999 s is shorter than 0\.2 s"),
    Case("50-ms.wav", _clip(Y[5000:5800]), r"0\.050 s is shorter than 0\.2 s"),
    Case("0.2-s.wav", _clip(Y[5000:8200]), quality=("short: 0.2 s",)),
    Case("nan.wav", _clip(_with(Y, 0.5, np.nan), subtype="FLOAT"), r"contains NaN at 0\.500 s"),
    Case("infinity.wav", _clip(_with(Y, 0.25, -np.inf), subtype="DOUBLE"), r"contains infinity at 0\.250 s"),
    Case(
        "infinities.wav",
        _clip(np.stack([_with(Y, 0.5, np.inf), _with(Y, 0.5, -np.inf)], axis=1), subtype="FLOAT"),
        r"contains NaN at 0\.500 s",
    ),
    Case(
        "no-sound.wav",
        _clip(1e25 * Y, subtype="FLOAT"),
        r"samples of up to .*e\+24, expected 1 at full scale",
    ),
    Case("no-pair-of-sounds.wav", _clip(1e25 * np.stack([Y, Y], 1), subtype="FLOAT"), "samples of up to .*"),
    Case("silence.wav", _clip(np.zeros(SR)), r"silent \(peak below 0\.0001 of full scale\)"),
    Case("constant.wav", _clip(np.full(SR, 0.5)), r"silent \(peak below 0\.0001 of full scale\)"),
    Case("cancelled.wav", _clip(np.stack([Y, -Y], 1)), "silent: the channels cancel .*Use one of them alone"),
    Case(
        "reversed-lead.wav",
        _clip(np.stack([Y, -0.8 * Y], 1)),
        warned=(r"channels cancel: .* 19 dB below them",),
    ),
    Case(
        "offset.wav",
        _clip(0.5 * Y + 0.25),
        warned=(r"offset: \+0\.25 of full scale was on every sample, and is taken out",),
    ),
    Case("clipped.wav", _clip(np.clip(20 * Y, -1, 1)), quality=("clipped: ",)),
    Case("quiet.wav", _clip(0.005 * Y, subtype="FLOAT"), quality=("very quiet: ",)),
]
SIZES = [
    Case(
        "3-hours.wav",
        _sparse(patched(encoded(Y, 8000, subtype="PCM_U8"), 40, "<I", 3 * 3600 * 8000), 3 * 3600 * 8000 + 44),
        "10800 s is longer than 600 s. .*",
    ),
    Case("longer.flac", _saved(flac_promising(601 * SR, 1, SR)), "601 s is longer than 600 s. .*"),
    Case("packed.flac", _clip(np.zeros(599 * SR, np.int16), container="FLAC"), "silent .*"),
    Case(
        "bomb.flac",
        _saved(flac_promising(590 * 192000, 8, 192000)),
        "590 s of 8 channels at 192000 Hz, expected 268435456 samples at most. .*",
    ),
    Case("33-channels.wav", _clip(np.zeros((SR, 33))), "33 channels, expected 32 at most"),
    Case("1024-channels.wav", _clip(np.zeros((100, 1024))), "1024 channels, expected 32 at most"),
    Case(
        "7999-hz.wav", _saved(patched(WAV, 24, "<I", 7999)), "a rate of 7999 Hz, expected 8000 to 384000 Hz"
    ),
    Case("1-hz.wav", _saved(patched(WAV, 24, "<I", 1)), "a rate of 1 Hz, .*"),
    Case("2-ghz.wav", _saved(patched(WAV, 24, "<I", 2**31 - 1)), "a rate of 2147483647 Hz, .*"),
]
DAMAGED = [
    *(
        Case(f"cut.{name}.wav", _saved(_half(encoded(Y, container=name))), warned=(TRUNCATED,))
        for name in ("WAV", "AIFF", "AU", "W64", "RF64", "CAF", "NIST")
    ),
    *(
        Case(f"cut.{name}.ogg", _saved(encoded(voice(3.0), SR, "OGG", name)[:-900]), warned=(CUT_PAGE,))
        for name in ("VORBIS", "OPUS")
    ),
    Case("cut.flac", _saved(_half(encoded(voice(4.0), container="FLAC"))), warned=(DAMAGED,)),
    Case(
        "cut-at-the-start.flac",
        _saved(encoded(Y, container="FLAC")[:2000]),
        r"not audio that can be read \(not a frame of its sound can be decoded\)",
    ),
    Case(
        "promises-4-gigabytes.wav",
        _saved(patched(WAV, 40, "<I", 4_000_000_000)),
        warned=(r"truncated: the header promises 125000\.00 s, the file holds 1\.20 s",),
    ),
    *(
        Case(f"stale.{name}.wav", _saved(sound_sizes(encoded(Y, container=name), 9600)), warned=(STALE,))
        for name in ("WAV", "AIFF", "AU", "W64", "RF64", "CAF")
    ),
    Case("between-pages.ogg", _saved(PAGES[: PAGES.rindex(b"OggS")]), warned=(CUT_STREAM,)),
    Case(
        "other-rate-behind.mp3",
        _saved(mp3(Y) + mp3(voice(1.2, 22050), 22050)),
        warned=(r"not all read: after 1\.\d\d s a recording of 1 channel at 22050 Hz follows",),
    ),
    Case("cut-in-a-frame.mp3", _saved(without_count(mp3(Y))[:-9])),
    # Sends libsndfile to the byte before the first one.
    Case(
        "lost-chunk.aiff",
        _saved(patched(encoded(Y, container="AIFF"), 38, "<I", 2**32 - 1)),
        r"not audio that can be read \(.*\)",
    ),
    Case("open-end.wav", _saved(patched(WAV, 40, "<I", 2**32 - 1))),
    Case("size-of-nothing.wav", _saved(patched(WAV, 4, "<I", 0))),
    Case("size-0.wav", _saved(sound_sizes(WAV, 0))),
    Case("says-size.wav", _saved(with_comment(WAV, f"\ndata : {10**400} (should be 1)\n", after=False))),
    Case("says-size-at-the-end.wav", _saved(with_comment(WAV, "\ndata : 10000 (should be 1)\n", after=True))),
    Case("chain.ogg", _saved(2 * encoded(Y, SR, "OGG", "VORBIS"))),
    Case("two-waves.wav", _saved(2 * WAV)),
    Case("flac-of-unknown-length.flac", _saved(patched(encoded(Y, container="FLAC"), 22, ">I", 0))),
]
FORMATS = [
    *(
        Case(f"{name}.wav", _clip(Y, subtype=name))
        for name in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
    ),
    *(
        Case(f"{name}.wav", _clip(Y, subtype=name))
        for name in ("ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "G721_32")
    ),
    Case("GSM610.wav", _clip(voice(1.2, 8000), 8000, "GSM610")),
    *(
        Case(f"{name}.wav", _clip(Y, container=name))
        for name in ("WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "FLAC")
    ),
    Case("AAC.m4a", _saved(AAC)),
    Case("phone.amr", _saved(PHONE), quality=("band-limited",)),
    Case("browser.webm", _saved(BROWSER)),
    Case("ALAC.mov", _saved(muxed(Y, codec="alac", container="mov"))),
    Case("film.mkv", _saved(muxed(0 * Y, Y, codec="aac", container="matroska")), warned=(SECOND,)),
    Case("VORBIS.ogg", _clip(Y, container="OGG", subtype="VORBIS")),
    Case("OPUS.opus", _clip(Y, container="OGG", subtype="OPUS")),
    Case("without-a-count.mp3", _saved(without_count(mp3(Y)))),
    Case("two-tags.mp3", _saved(2 * TAG + mp3(Y))),
    Case("tagged.wav", _saved(TAG + WAV)),
    Case("MP3.mp3", _clip(Y, container="MP3", subtype="MPEG_LAYER_III")),
    Case("tagged.mp3", _saved(TAG + encoded(Y, SR, "MP3", "MPEG_LAYER_III"))),
    *(
        Case(f"{sr}-hz.wav", _clip(voice(1.2, sr), sr))
        for sr in (8000, 11025, 44100, 48000, 96000, 192000, 384000)
    ),
    *(Case(f"{n}-channels.wav", _clip(_channels(n))) for n in (1, 2, 6, 32)),
]
NAMES = [
    Case(os.fsdecode(name), _saved(WAV))
    for name in (
        *(b"UPPER.WAV", b"a b  c.wav", b"-rf.wav", b"--help.wav", b"[bold]x[red].wav", b"new\nline\r.wav"),
        *(b"esc\x1b[31m.wav", b"*?{}$(x)`x`;&|'\".wav", b"a,b.wav", b"100%s.wav", b"caf\xe9\xff.wav"),
        *("ünï-😀-\u202egpj.wav".encode(), b"x" * 251 + b".wav", b"speech.flac"),
    )
]
NO_FILES = [
    Case("fifo.wav", os.mkfifo, "not a regular file"),
    Case("device.wav", lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    Case("dangling.wav", lambda path: path.symlink_to("nowhere"), "no such file"),
    Case("self.wav", lambda path: path.symlink_to(path.name), "too many levels of symbolic links"),
]
CASES = [*NO_AUDIO, *SAMPLES, *SIZES, *DAMAGED, *FORMATS, *NAMES, *NO_FILES]


def write_all(folder: Path, cases: list[Case] = CASES) -> Path:
    """Write cases into a folder, and return that."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        case.make(folder / case.name)
    return folder
