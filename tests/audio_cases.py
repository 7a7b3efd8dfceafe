"""Recordings as they come from strangers: one of each kind, with what a user must be told of it."""

from __future__ import annotations

import io
import os
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
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


@dataclass(frozen=True)
class Case:
    """A file and what is to be said of it. Reasons and warnings are whole, as regular expressions."""

    name: str  # with the suffix of an audio format, so that a folder's scan finds it
    content: bytes | Callable[[Path], object]  # or what makes it
    refused: str | None = None
    warned: tuple[str, ...] = ()
    quality: tuple[str, ...] = ()  # how further warnings of `predict` begin


@cache
def voice(seconds: float = 1.2, sr: int = SR, f0: float = 140.0) -> np.ndarray:
    y = noisy(np.random.default_rng(440), seconds, sr, f0)
    y.flags.writeable = False  # all tests get the same
    return y


def encoded(y: np.ndarray, sr: int = SR, container: str = "WAV", subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, y, sr, format=container, subtype=subtype)
    return buffer.getvalue()


def floats(y: np.ndarray) -> bytes:
    return encoded(y, subtype="FLOAT")


def decoded(content: bytes, config: AudioConfig | None = None) -> Recording:
    """Decode what a file holds."""
    (recording,) = reader.read_channels("clip", config or AudioConfig(), content=content)
    return recording


def joined(
    path: str | Path, sr: int = SR, channel: str = "mix", config: AudioConfig | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a file in blocks; return samples and warnings."""
    with open_blocks(path, sr, config or AudioConfig(), channel) as blocks:
        return np.concatenate(list(blocks)), blocks.warnings


def read_both(content: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a file whole and in blocks, which is to be the same; return samples and warnings."""
    path = Path("clip")
    path.write_bytes(content)
    (recording,) = reader.read_channels(path, AudioConfig())
    y, warnings = joined(path, recording.sr)
    np.testing.assert_allclose(y, recording.y, atol=1e-6)
    assert warnings == recording.warnings
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
# Where it has no rate of its own.
_BIT_RATES = {"wmav2": 32000, "g723_1": 6300}


def muxed(*tracks: np.ndarray, sr: int = SR, codec: str, container: str, options: Any = None) -> bytes:
    """Encode sound tracks [shape=(n,) or (n, channels)] of 16 bits with FFmpeg; without any, a video."""
    with tempfile.NamedTemporaryFile() as file:
        with av.open(file.name, "w", format=container, options=options or {}) as out:
            streams = [out.add_stream(codec, sr, layout=_LAYOUTS[y[0].size]) for y in tracks]
            for stream, y in zip(streams, tracks, strict=True):
                if codec in _SAMPLE_FORMATS:
                    stream.codec_context.format = _SAMPLE_FORMATS[codec]
                if codec in _BIT_RATES:
                    stream.bit_rate = _BIT_RATES[codec]
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


def chunk(name: bytes, content: bytes) -> bytes:
    """Write a chunk of a WAV file."""
    return name + struct.pack("<I", len(content)) + content


def mp3(y: np.ndarray, sr: int = SR, mode: str = "VARIABLE", *, counted: bool = True) -> bytes:
    """Encode as MP3, with a first frame that counts the others, or without it."""
    buffer = io.BytesIO()
    soundfile.write(
        buffer, y, sr, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode=mode, compression_level=0.5
    )
    content = buffer.getvalue()
    return content if counted else content[content.index(content[:2], 4) :]


def flac_promising(frames: int, channels: int, sr: int) -> bytes:
    """Encode next to nothing as FLAC, and raise the 36 bits that say how many frames there are."""
    content = encoded(np.zeros((sr // 10, channels)), sr, "FLAC")
    (word,) = struct.unpack_from(">Q", content, 18)
    return patched(content, 18, ">Q", word >> 36 << 36 | frames)


def _with(y: np.ndarray, at_s: float, value: float) -> np.ndarray:
    changed = y.copy()
    changed[round(at_s * SR)] = value
    return changed


def _channels(n: int, sr: int = SR) -> np.ndarray:
    return np.stack([voice(1.2, sr, 120.0 + 10.0 * i) for i in range(n)], axis=1)


Y = voice()
WAV = encoded(Y)
INFINITE = _with(Y, 0.5, np.inf)
NOT_READ = r"not audio that can be read \(.*\)"
NOT_RECOGNISED = r"not audio that can be read \(format not recognised\)"
TEXT = r"not audio that can be read \(it is text\)"
TRUNCATED = r"truncated: the header promises 1\.2\d? s, the file holds 0\.\d\d s"
PROMISES_MUCH = r"truncated: the header promises 125000\.00 s, the file holds 1\.20 s"
OFFSET = r"offset: \+0\.25 of full scale was on every sample, and is taken out"
OTHER_RATE = r"not all read: after 1\.\d\d s a recording of 1 channel at 22050 Hz follows"
NOT_A_FRAME = r"not audio that can be read \(not a frame of its sound can be decoded\)"
STALE = r"stale header: it promises 0\.30 s, the file holds 1\.20 s, all of which is read"
CUT_STREAM = r"truncated: the file ends before its Ogg stream does, after \d\.\d\d s"
PAGES = encoded(voice(3.0), SR, "OGG", "VORBIS")
DAMAGED = r"damaged: 1\.\d\d of 4\.00 s can be decoded"
SECOND = "not all read: 2 sound tracks, this is number 2; --track takes another"
CUT_PAGE = r"truncated: the file ends within a page of its Ogg stream, after \d\.\d\d s"

AAC = muxed(Y, codec="aac", container="ipod")
PHONE = muxed(voice(1.2, 8000), sr=8000, codec="libopencore_amrnb", container="amr")
BROWSER = muxed(voice(3.0), codec="libopus", container="webm")
THREE_HOURS = patched(encoded(Y, 8000, subtype="PCM_U8"), 40, "<I", 3 * 3600 * 8000)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"

NO_AUDIO = [
    Case("zero-length.wav", b"", "empty file"),
    Case("text.wav", b"Dear all,\nplease find attached\n", TEXT),
    Case("page.mp3", b"<!DOCTYPE html>\n<html>", TEXT),
    Case("silent-film.mp4", muxed(codec="mpeg4", container="mp4"), "has no sound track"),
    Case("without-moov.m4a", AAC[: AAC.index(b"moov") - 4], NOT_READ),
    Case(
        "second-chunk.webm",
        BROWSER[BROWSER.index(b"\x1fC\xb6u") :],
        r"not audio .* \(it is a WebM recording without its beginning\)\. Join its parts: .*",
    ),
    Case(
        "without-packets.wav",
        muxed(voice(3.0), codec="aac", container="wav"),
        r"damaged: \d of \d parts of its sound cannot be decoded",
    ),
    Case("playlist.m4a", b"\0\0\0\x1cftypM4A \nffconcat version 1.0\nfile '/etc/passwd'\n", ".*"),
    Case("no-fmt.wav", WAV[:12], NOT_READ),
    Case("byte.wav", b"\0", NOT_RECOGNISED),
    Case("garbage.wav", np.random.default_rng(0).bytes(5000), NOT_RECOGNISED),
    Case("zeros.wav", bytes(5000), NOT_RECOGNISED),
    Case("magic-only.wav", b"RIFF", TEXT),
    Case("other-riff.wav", b"RIFF\x10\0\0\0CDDA" + bytes(100), NOT_RECOGNISED),
    Case("header-only.wav", WAV[:44], "no samples"),
    Case("cut-in-fmt.wav", WAV[:30], NOT_READ),
    Case("no-channels.wav", patched(WAV, 22, "<H", 0), NOT_READ),
    Case("no-frame.mp3", b"\xff\xfb\x90\x64" + bytes(400), NOT_RECOGNISED),
    Case("tag-before-nothing.mp3", b"ID3\x04\0\0\0\0\0\x0a" + bytes(400), NOT_RECOGNISED),
    # Formats that nobody records voices in: their decoders never see a byte.
    *(
        Case(f"format-{name}.wav", encoded(Y, container=name, subtype=subtype), NOT_RECOGNISED)
        for name, subtype in (("PAF", "PCM_16"), ("HTK", "PCM_16"))
    ),
    Case("format-MAT5.wav", encoded(Y, container="MAT5"), r"not audio .* \(it is a MATLAB file\)"),
    Case("format-VOC.wav", encoded(Y, container="VOC"), r"not audio .* \(it is a VOC file\)\. .*"),
    Case("lfs.wav", LFS, r"not audio .* \(it is a Git LFS pointer\)\. Run git lfs pull"),
    Case("raw.wav", WAV[44:], r"no header \(raw PCM\?\)\. Say its rate, --raw 16000, or convert it: .*"),
]
SAMPLES = [
    Case("no-samples.wav", encoded(np.zeros(0)), "no samples"),
    Case("no-pairs.wav", encoded(np.zeros((0, 2))), "no samples"),
    Case("one-sample.wav", encoded(Y[5000:5001]), r"0\.000 s is shorter than 0\.2 s"),
    Case("199.9-ms.wav", encoded(Y[5000:8199]), r"0\.1999 s is shorter than 0\.2 s"),
    Case("50-ms.wav", encoded(Y[5000:5800]), r"0\.050 s is shorter than 0\.2 s"),
    Case("0.2-s.wav", encoded(Y[5000:8200]), quality=("short: 0.2 s",)),
    Case("nan.wav", floats(_with(Y, 0.5, np.nan)), r"contains NaN at 0\.500 s"),
    Case("infinity.wav", encoded(-INFINITE, subtype="DOUBLE"), r"contains infinity at 0\.500 s"),
    Case("infinities.wav", floats(np.stack([INFINITE, -INFINITE], 1)), r"contains NaN at 0\.500 s"),
    Case("no-sound.wav", floats(1e25 * Y), r"samples of up to .*e\+24, expected 1 at full scale"),
    Case("no-pair-of-sounds.wav", floats(np.outer(1e25 * Y, [1, 1])), "samples of up to .*"),
    Case("silence.wav", encoded(np.zeros(SR)), r"silent \(peak below 0\.0001 of full scale\)"),
    Case("constant.wav", encoded(np.full(SR, 0.5)), r"silent \(peak below 0\.0001 of full scale\)"),
    Case("cancelled.wav", encoded(np.outer(Y, [1, -1])), r"silent: .* cancel .*\. Use one of them alone"),
    Case(
        "reversed-lead.wav",
        encoded(np.outer(Y, [1, -0.8])),
        warned=(r"channels cancel: .* 19 dB below them",),
    ),
    Case("offset.wav", encoded(0.5 * Y + 0.25), warned=(OFFSET,)),
    Case("clipped.wav", encoded(np.clip(20 * Y, -1, 1)), quality=("clipped: ",)),
    Case("quiet.wav", floats(0.005 * Y), quality=("very quiet: ",)),
]
SIZES = [
    Case(
        "3-hours.wav",
        lambda path: (path.write_bytes(THREE_HOURS), os.truncate(path, 3 * 3600 * 8000 + 44)),
        "10800 s is longer than 600 s. .*",
    ),
    Case("longer.flac", flac_promising(601 * SR, 1, SR), "601 s is longer than 600 s. .*"),
    Case("packed.flac", encoded(np.zeros(599 * SR, np.int16), container="FLAC"), "silent .*"),
    Case(
        "bomb.flac",
        flac_promising(590 * 192000, 8, 192000),
        "590 s of 8 channels at 192000 Hz, expected 268435456 samples at most. .*",
    ),
    Case("33-channels.wav", encoded(np.zeros((SR, 33))), "33 channels, expected 32 at most"),
    Case("1024-channels.wav", encoded(np.zeros((100, 1024))), "1024 channels, expected 32 at most"),
    Case("7999-hz.wav", patched(WAV, 24, "<I", 7999), "a rate of 7999 Hz, expected 8000 to 384000 Hz"),
    Case("1-hz.wav", patched(WAV, 24, "<I", 1), "a rate of 1 Hz, .*"),
    Case("2-ghz.wav", patched(WAV, 24, "<I", 2**31 - 1), "a rate of 2147483647 Hz, .*"),
]
DAMAGED = [
    *(
        Case(f"cut.{name}.wav", encoded(Y, container=name)[:20_000], warned=(TRUNCATED,))
        for name in ("WAV", "AIFF", "NIST")
    ),
    *(
        Case(f"cut.{name}.ogg", encoded(voice(3.0), SR, "OGG", name)[:-900], warned=(CUT_PAGE,))
        for name in ("VORBIS", "OPUS")
    ),
    Case("cut.flac", encoded(voice(4.0), container="FLAC")[:45_000], warned=(DAMAGED,)),
    Case("cut-at-the-start.flac", encoded(Y, container="FLAC")[:2000], NOT_A_FRAME),
    Case("promises-4-gigabytes.wav", sound_sizes(WAV, 4_000_000_000), warned=(PROMISES_MUCH,)),
    Case("stale.wav", sound_sizes(WAV, 9600), warned=(STALE,)),
    Case("between-pages.ogg", PAGES[: PAGES.rindex(b"OggS")], warned=(CUT_STREAM,)),
    Case("other-rate-behind.mp3", mp3(Y) + mp3(voice(1.2, 22050), 22050), warned=(OTHER_RATE,)),
    Case("cut-in-a-frame.mp3", mp3(Y, counted=False)[:-9]),
    # Sends libsndfile to the byte before the first one.
    Case("lost-chunk.aiff", patched(encoded(Y, container="AIFF"), 38, "<I", 2**32 - 1), NOT_READ),
    Case("open-end.wav", patched(WAV, 40, "<I", 2**32 - 1)),
    Case("size-of-nothing.wav", patched(WAV, 4, "<I", 0)),
    Case("size-0.wav", sound_sizes(WAV, 0)),
    Case("flac-of-unknown-length.flac", patched(encoded(Y, container="FLAC"), 22, ">I", 0)),
]
FORMATS = [
    *(
        Case(f"{name}.wav", encoded(Y, subtype=name))
        for name in ("ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "G721_32")
    ),
    Case("GSM610.wav", encoded(voice(1.2, 8000), 8000, subtype="GSM610")),
    Case("AAC.m4a", AAC),
    Case("phone.amr", PHONE, quality=("band-limited",)),
    Case("browser.webm", BROWSER),
    Case("ALAC.mov", muxed(Y, codec="alac", container="mov")),
    Case("film.mkv", muxed(0 * Y, Y, codec="aac", container="matroska"), warned=(SECOND,)),
    Case("VORBIS.ogg", encoded(Y, container="OGG", subtype="VORBIS")),
    Case("OPUS.opus", encoded(Y, container="OGG", subtype="OPUS")),
    Case("without-a-count.mp3", mp3(Y, counted=False)),
    Case("two-tags.mp3", 2 * TAG + mp3(Y)),
    Case("tagged.wav", TAG + WAV),
    Case("MP3.mp3", encoded(Y, container="MP3", subtype="MPEG_LAYER_III")),
    Case("tagged.mp3", TAG + encoded(Y, SR, "MP3", "MPEG_LAYER_III")),
    *(Case(f"{sr}-hz.wav", encoded(voice(1.2, sr), sr)) for sr in (8000, 44100, 192000, 384000)),
    *(Case(f"{n}-channels.wav", encoded(_channels(n))) for n in (2, 6, 32)),
]
NAMES = [
    Case(os.fsdecode(name), WAV)
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
        path = folder / case.name
        path.write_bytes(case.content) if isinstance(case.content, bytes) else case.content(path)
    return folder
