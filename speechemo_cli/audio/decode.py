"""What a file is by its content, and its sound as one stream of parts, whichever decoder each needs."""

from __future__ import annotations

import io
import math
import os
import re
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from speechemo_cli.audio import wav_header
from speechemo_cli.audio.decoders import Decoder, FFmpegDecoder, PcmDecoder, SndfileDecoder, form
from speechemo_cli.audio.wav_header import READ_BYTES, Part, Pcm, past_padding, read_at
from speechemo_cli.errors import AudioError, UnknownFormatError
from speechemo_cli.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from speechemo_cli.config import AudioConfig

# Links of a chain of Ogg streams, or files that were joined.
_MOST_PARTS = 2**10
# Uncorrelated channels have a mean with an n-th of their power. Below a tenth of that, they cancel each
# other, as where the leads of a microphone are swapped; below a millionth, nothing is left of them.
CANCELLED = 0.1
CANCELLED_WHOLLY = 1e-6
_MOST_TAGS = 16
_KINDS = re.compile(
    rb"(?P<riff>(RIFF|RIFX|RF64|BW64)....WAVE)|(?P<aiff>FORM....AIF[FC])|(?P<w64>riff\x2e\x91\xcf\x11)"
    rb"|(?P<caf>caff)|(?P<au>\.snd|dns\.)|(?P<nist>NIST_1A)|(?P<flac>fLaC)|(?P<ogg>OggS)",
    re.DOTALL,
)
_FLAC = re.compile(rb"fLaC[\0\x80]\0\0\x22")
_PAGE = re.compile(rb"OggS\0([\0-\x07])", re.DOTALL)
# MP4 and its relatives begin with a size, MPEG program streams with a start code.
_BEGINS_WITH_0 = re.compile(rb"....(ftyp|wide|mdat|moov|free|skip|pnot)|\0\0\1\xba", re.DOTALL)


class AudioStream:
    """The sound of a file: its parts one after the other, as long as they are of one rate.

    `file` is read from its beginning, wherever it stands. The config says which of several sound tracks, and
    the rate of a file without a header; `suffix` decides nothing but the words for what cannot be read.
    `frames` and `estimated_s` are those of the first part, `held` counts the frames that were read, and
    `warnings` are complete when the last one was. An AudioError is raised for what is not audio, or of a
    format, codec, rate or number of channels that is not read.
    """

    def __init__(self, file: BinaryIO, config: AudioConfig, suffix: str = "") -> None:
        self.warnings: tuple[str, ...] = ()
        self.held = 0
        self._parts = _parts(file, config, suffix)
        self._left_parts = _MOST_PARTS
        self._ended = False
        self._decoder = next(self._parts)
        self._decoder.check_supported()
        self.sr, self.channels = self._decoder.sr, self._decoder.channels
        self.frames, self.estimated_s = self._decoder.frames, self._decoder.estimated_s
        self.names = ("left", "right") if self.channels == 2 else tuple(map(str, range(1, self.channels + 1)))

    def read(self, n: int) -> NDArray[np.float32]:
        """Decode the next `n` frames [shape=(n, channels)], fewer at the end."""
        found = [np.empty((0, self.channels), np.float32)]
        while n and not self._ended:
            found.append(self._decoder.read(n))
            self.held += len(found[-1])
            n -= len(found[-1])
            self._ended = n > 0 and not self._next()
        return found[1] if len(found) == 2 else np.concatenate(found)

    def mono(self, names: tuple[str, ...], n: int) -> Iterator[list[NDArray[np.float32]]]:
        """Yield `n` samples of each channel of those names, fewer at the end; `mix` is the mean of all.

        There is a warning in the end if the mean has lost what was in the channels. An AudioError is raised
        if nothing is left of it, or if there is no such channel.
        """
        mixed = self.channels > 1 and "mix" in names
        mean_power = channel_power = 0.0
        while len(y := self.read(n)):
            block = [self._channel(y, name) for name in names]
            if mixed:
                with np.errstate(invalid="ignore", over="ignore"):
                    mean_power += float(np.vdot(block[0], block[0]))
                    channel_power += float(np.vdot(y, y) / self.channels)
            yield block
        if 0.0 < channel_power < math.inf and self.channels * mean_power < CANCELLED * channel_power:
            if mean_power < CANCELLED_WHOLLY * channel_power:
                raise AudioError("silent: the channels cancel each other out", "Use one of them alone")
            lost_db = 10 * math.log10(channel_power / mean_power)
            self.warnings += (f"channels cancel: their mean is {lost_db:.0f} dB below them",)

    def _channel(self, y: NDArray[np.float32], name: str) -> NDArray[np.float32]:
        if name != "mix" and name not in self.names:
            raise AudioError(f"has {self.channels} channel{'s' * (self.channels > 1)}, no {name} one")
        if name != "mix" or self.channels == 1:
            return np.ascontiguousarray(y[:, 0 if name == "mix" else self.names.index(name)])
        # What `y.mean(axis=1)` gives, channel after channel, in a tenth of the time. Infinities of both signs
        # make NaN, which is refused in its place.
        with np.errstate(invalid="ignore", over="ignore"):
            total = y[:, 0].copy()
            for i in range(1, self.channels):
                total += y[:, i]
            total /= np.float32(self.channels)
        return total

    def close(self) -> None:
        """Close the file."""
        self._decoder.close()

    def _next(self) -> bool:
        """Go on to the next part of the file, if there is one to be read."""
        self.warnings += self._decoder.warnings()
        self._decoder.close()
        self._left_parts -= 1
        after = f"after {self.held / self.sr:.2f} s"
        try:
            decoder = next(self._parts, None) if self._left_parts else None
            if decoder and (decoder.channels, decoder.sr) == (self.channels, self.sr):
                self._decoder = decoder
                return True
            if decoder:
                rest = f"{after} a recording of {form(decoder.channels, decoder.sr)} follows"
            elif self._left_parts:
                return False
            else:
                rest = f"more follow {after}, which are {_MOST_PARTS} recordings"
        except AudioError as error:
            rest = f"{after} a recording follows that is not read ({error.message})"
        self.warnings += (f"not all read: {rest}",)
        return False


@contextmanager
def open_stream(
    source: str | os.PathLike[str] | bytes, config: AudioConfig, path: str | os.PathLike[str] = ""
) -> Iterator[AudioStream]:
    """Open the sound of a file, or of what a file of that path holds."""
    with ExitStack() as stack:
        file: BinaryIO
        if isinstance(source, bytes):
            file = io.BytesIO(source)
        else:
            path = source
            with file_errors():
                file = stack.enter_context(open_regular(source))
        if not file.seek(0, os.SEEK_END):
            raise AudioError("empty file")
        yield stack.enter_context(closing(AudioStream(file, config, Path(path).suffix)))


@contextmanager
def file_errors() -> Iterator[None]:
    """Say what is wrong with a file that cannot be opened or read, as an AudioError."""
    try:
        yield
    except IsADirectoryError:
        raise AudioError("a folder, not a clip") from None
    except FileNotFoundError:
        raise AudioError("no such file") from None
    except OSError as error:
        raise AudioError((error.strerror or str(error)).lower()) from None
    except ValueError:
        raise AudioError("not a possible file name") from None


def is_plain(file: BinaryIO) -> bool:
    """Whether a file holds plain samples, which nothing decodes."""
    at, kind = _begin(file)
    found = wav_header.find(file, kind, at, file.seek(0, os.SEEK_END)) if kind else None
    return found is not None and found.pcm is not None


# --- the parts of a file


def _parts(file: BinaryIO, config: AudioConfig, suffix: str) -> Iterator[Decoder]:
    """Open one part of a file after another: links of a chain, files that were joined."""
    end, track = file.seek(0, os.SEEK_END), config.track
    if config.raw_sr:
        yield PcmDecoder(Part(file, 0, end), Pcm("PCM_16", "LITTLE", config.raw_sr, 1), end)
        return
    at, first = _begin(file)
    kind = first
    while kind == first:
        if kind == "ogg":
            behind, cut = _ogg_link(file, at, end)
            # Of Vorbis FFmpeg 8 adds samples at the end, or loses some.
            if read_at(file, at + 28, 7) == b"\x01vorbis":
                yield SndfileDecoder(Part(file, at, behind), cut)
            else:
                yield FFmpegDecoder(Part(file, at, behind), track, cut)
        elif kind == "flac":
            behind = next((place for place, _ in _places(file, _FLAC, 8, at + 4, end)), end)
            yield SndfileDecoder(Part(file, at, behind))
        elif kind and (found := wav_header.find(file, kind, at, end)):
            behind = found.behind
            start, held, _ = found.spans[0]
            if found.pcm:
                for start, held, promised in found.spans:
                    yield PcmDecoder(Part(file, start, start + held), found.pcm, promised)
            elif found.header is None:
                yield FFmpegDecoder(Part(file, at, end), track)
            else:
                yield FFmpegDecoder(Part(file, start, start + held, found.header), track, found.cut)
        else:
            try:
                yield FFmpegDecoder(Part(file, at, end), track)
            except UnknownFormatError:
                if kind:
                    raise
                raise AudioError(*_refusal(file, suffix.lower())) from None
            return
        at, kind = _begin(file, behind)


def _begin(file: BinaryIO, at: int = 0) -> tuple[int, str | None]:
    """Return where a recording begins behind padding and tags that players write before it, and its kind.

    That is a name of `_KINDS`; None where nothing known begins.
    """
    for _ in range(_MOST_TAGS):
        head = read_at(file, at, 10)
        if head.startswith(b"ID3") and len(head) == 10:
            # Four times seven bits, and a footer that repeats the header.
            at += 10 + sum((byte & 127) << 7 * (3 - i) for i, byte in enumerate(head[6:]))
            at += 10 * (head[5] >> 4 & 1)
        elif head.startswith(b"TAG"):
            at += 128
        elif head.startswith(b"APETAGEX"):
            at += 32 + int.from_bytes(read_at(file, at + 12, 4), "little")
        elif head[:1] in (b"\0", b"\r", b"\n") and not _BEGINS_WITH_0.match(head):
            at = past_padding(file, at)
        else:
            break
    match = _KINDS.match(read_at(file, at, 16))
    return at, match and match.lastgroup


def _ogg_link(file: BinaryIO, at: int, end: int) -> tuple[int, str]:
    """Return where a link of a chain of Ogg streams ends, and in what the file ends that it should not.

    A link ends before the first page that begins a stream after others did not (RFC 3533).
    """
    begun, page, last = False, at, b""
    for page, match in _places(file, _PAGE, 6, at, end):
        flags = match[1][0]
        if begun and flags & 2:
            return page, ""
        begun = begun or not flags & 2
        last = read_at(file, page, 27 + 255)
    if len(last) < 27 or page + 27 + last[26] + sum(last[27 : 27 + last[26]]) > end:
        return end, "ends within a page of its Ogg stream"
    return end, "" if last[5] & 4 else "ends before its Ogg stream does"


def _places(
    file: BinaryIO, pattern: re.Pattern[bytes], n: int, at: int, end: int
) -> Iterator[tuple[int, re.Match[bytes]]]:
    """Yield where a pattern of `n` bytes stands in a file, and its match."""
    while at < end:
        for match in pattern.finditer(read_at(file, at, READ_BYTES + n - 1)):
            yield at + match.start(), match
        at += READ_BYTES


# --- what is no audio

_OTHERS = (
    (b"version https://git-lfs.github.com/", "a Git LFS pointer", "Run git lfs pull"),
    (b"\x1fC\xb6u", "a WebM recording without its beginning", "Join its parts: cat PART1 PART2 > WHOLE"),
    (b"PK\3\4", "a zip archive", "Unzip it"),
    (b"%PDF", "a PDF", ""),
    (b"MATLAB", "a MATLAB file", ""),
    (b"Creative Voice File", "a VOC file", "Convert it to WAV"),
    (b"\x89PNG", "a picture", ""),
    (b"\xff\xd8\xff", "a picture", ""),
)
# Suffixes of files without a header, and what makes a WAV of them.
_HEADERLESS = {
    **dict.fromkeys((".pcm", ".raw", ".sln16"), "ffmpeg -f s16le -ar 16000 -ac 1 -i FILE clip.wav"),
    ".sln": "ffmpeg -f s16le -ar 8000 -ac 1 -i FILE clip.wav",
    ".gsm": "ffmpeg -f gsm -i FILE clip.wav",
    ".g722": "ffmpeg -f g722 -i FILE clip.wav",
    ".vox": "sox -t vox -r 8000 FILE clip.wav",
    **dict.fromkeys((".ulaw", ".ul", ".mulaw", ".pcmu"), "ffmpeg -f mulaw -ar 8000 -i FILE clip.wav"),
    **dict.fromkeys((".alaw", ".al", ".pcma"), "ffmpeg -f alaw -ar 8000 -i FILE clip.wav"),
}


def _refusal(file: BinaryIO, suffix: str) -> tuple[str, str]:
    """Name what is no audio as far as its bytes and the suffix of its name tell, and a way out."""
    head = read_at(file, 0, READ_BYTES)
    for mark, name, hint in _OTHERS:
        if head.startswith(mark):
            return f"not audio that can be read (it is {name})", hint
    first = head[:512]
    if first.isascii() and first.decode("ascii").replace("\n", " ").replace("\r", " ").isprintable():
        return "not audio that can be read (it is text)", ""
    y = np.frombuffer(head[: len(head) // 2 * 2], "<i2").astype(np.float64)
    # Neighbouring samples of a voice are alike; bytes that are no samples are not.
    alike = float(np.dot(y[1:], y[:-1])) > 0.5 * float(np.dot(y, y)) > 0
    if suffix in _HEADERLESS or (alike and not _BEGINS_WITH_0.match(first)):
        line = _HEADERLESS.get(suffix, _HEADERLESS[".pcm"])
        rate = re.search(r"s16le -ar (\d+)", line)
        raw = f"Say its rate, --raw {rate[1]}, or convert it" if rate else "Convert it"
        return "no header (raw PCM?)", f"{raw}: {line}"
    return "not audio that can be read (format not recognised)", ""
