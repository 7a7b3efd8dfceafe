"""Decoders: libsndfile for plain samples, FLAC and Vorbis; FFmpeg, which PyAV brings along, for the rest."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.audio import vad
from speechemo_cli.errors import AudioError, UnknownFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from speechemo_cli.audio.wav_header import Part, Pcm

# The telephone's rate to the highest that recorders have.
LOWEST_SR, HIGHEST_SR = 8_000, 384_000
MOST_CHANNELS = 32
# The formats that FFmpeg may find in a file; nothing that names other files is among them. Of the counted
# ones a header or an index tells the length, of others FFmpeg guesses it from the bit rate.
_COUNTED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "asf", "ogg", "flac", "tta", "ape", "wv"})
_FORMATS = (
    *_COUNTED,
    *("mp3", "aac", "amr", "wav", "w64", "caf", "aiff", "au", "nistsphere", "avi", "flv", "mpeg", "mpegts"),
    *("ac3", "eac3", "dts", "rm"),
)
# A file that holds less than this share of what it promises was cut, unless it lacks so little: some headers
# count the delay of the encoder, and what fills its last frame.
_CUT_SHARE, _CUT_S, _CUT_SAMPLES = 0.98, 0.1, 2400
# So many packets without sound are no recording.
_MOST_EMPTY_PACKETS = 2**18
# What is looked at of each sound track to find the one with speech.
_LOOKED_AT_S = 30.0
# The first frame of an MP3 may be none, but count those that follow; its lowest bit says that it does.
_MP3_COUNT = re.compile(rb"(?:Xing|Info)\0\0\0[\x01\x03\x05\x07\x09\x0b\x0d\x0f](....)", re.DOTALL)


def form(channels: int, sr: int) -> str:
    """Say what a recording is, as in `2 channels at 44100 Hz`."""
    return f"{channels} channel{'s' * (channels > 1)} at {sr} Hz"


class Decoder:
    """What decodes a part of a file.

    `frames` is how many there are by the header, if it says; `estimated_s` about how long they last, if that
    is known; `held` how many have been read. `cut` says in what the file ends that it should not end in, and
    `damage` what else has been found wrong so far.
    """

    sr: int
    channels: int
    frames: int | None = None
    estimated_s = 0.0
    held = 0
    cut = ""
    damage: tuple[str, ...] = ()
    _file: Any

    def read(self, n: int) -> NDArray[np.float32]:
        """Decode the next `n` frames [shape=(n, channels)], fewer at the end."""
        y = self._read(n)
        self.held += len(y)
        return y

    def _read(self, n: int) -> NDArray[np.float32]:
        raise NotImplementedError

    def warnings(self) -> tuple[str, ...]:
        """Say what is wrong, when the last frame was read."""
        held_s = self.held / self.sr
        if self.cut:
            return (*self.damage, f"truncated: the file {self.cut}, after {held_s:.2f} s")
        return (*self.damage, *self._wrong(held_s))

    def _wrong(self, held_s: float) -> tuple[str, ...]:
        """Compare what is held with what was promised."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def check_supported(self) -> None:
        """Raise AudioError for a rate or a number of channels that is not read."""
        if not LOWEST_SR <= self.sr <= HIGHEST_SR:
            raise AudioError(f"a rate of {self.sr} Hz, expected {LOWEST_SR} to {HIGHEST_SR} Hz")
        if self.channels > MOST_CHANNELS:
            raise AudioError(f"{self.channels} channels, expected {MOST_CHANNELS} at most")


# --- libsndfile


@contextmanager
def _sndfile_errors() -> Iterator[None]:
    """Say what is wrong with audio that libsndfile refuses, as an AudioError."""
    import soundfile

    try:
        yield
    except soundfile.LibsndfileError as error:
        reason = str(error.error_string).rstrip(".").lower()
        raise AudioError(f"not audio that can be read ({reason})") from None
    except (RuntimeError, ValueError, MemoryError) as error:
        raise AudioError(f"cannot be decoded ({type(error).__name__})") from None


class _LibsndfileDecoder(Decoder):
    _dtype = "float32"

    def _open(self, file: Part, *raw: Any) -> None:
        import soundfile

        with _sndfile_errors():
            self._file = soundfile.SoundFile(file, "r", *raw, closefd=False)
        self._file.seekable = lambda: False  # after each read soundfile would seek to where it is

    def _read(self, n: int) -> NDArray[np.float32]:
        n = n if self.frames is None else min(n, self.frames - self.held)
        with _sndfile_errors():
            y: NDArray[np.float32] = self._file.read(n, self._dtype, always_2d=True)
        if self._dtype == "int16":  # the same numbers in half the time
            y = y.astype(np.float32)
            y *= np.float32(2.0**-15)
        return y


class PcmDecoder(_LibsndfileDecoder):
    """Plain samples, without their header, and how many bytes of them that promises."""

    def __init__(self, file: Part, pcm: Pcm, promised: int) -> None:
        self.sr, self.channels = pcm.sr, pcm.channels
        if not pcm.channels:
            raise AudioError("not audio that can be read (no channels)")
        self.check_supported()
        self.frames = file.size // pcm.frame_bytes
        self._promised = promised // pcm.frame_bytes
        self._dtype = "int16" if pcm.subtype == "PCM_16" else "float32"
        self._open(file, pcm.sr, pcm.channels, pcm.subtype, pcm.endian, "RAW")

    def _wrong(self, held_s: float) -> tuple[str, ...]:
        return _wrong_length(self._promised / self.sr, held_s) if self.held else ()


class SndfileDecoder(_LibsndfileDecoder):
    """FLAC and Vorbis by libsndfile; from the first damage on by FFmpeg, which loses less."""

    def __init__(self, file: Part, cut: str = "") -> None:
        self._given, self.cut = file, cut
        self._salvage: FFmpegDecoder | None = None
        try:
            self._open(file)
            self.sr, self.channels = self._file.samplerate, self._file.channels
            # For streams that do not say libsndfile has 2**63 - 1, or a guess of what an endless file holds.
            self.frames = self._file.frames if self._file.frames < 2**50 else None
        except AudioError:
            self._file = self._salvage = FFmpegDecoder(file)
            self.sr, self.channels = self._salvage.sr, self._salvage.channels

    def _read(self, n: int) -> NDArray[np.float32]:
        if self._salvage is None:
            try:
                return super()._read(n)
            except AudioError:
                self._file = self._salvage = FFmpegDecoder(self._given)
                while self._salvage.held < self.held:  # pass over what has been read
                    if not len(self._salvage.read(min(self.held - self._salvage.held, 2**16))):
                        break
        return self._salvage.read(n)

    def _wrong(self, held_s: float) -> tuple[str, ...]:
        if self._salvage is None:
            return () if self.frames is None else _wrong_length(self.frames / self.sr, held_s)
        if self.frames:
            return (f"damaged: {held_s:.2f} of {self.frames / self.sr:.2f} s can be decoded",)
        return self._salvage.damage or ("damaged: a part of its sound may be wrong",)


def _wrong_length(promised_s: float, held_s: float) -> tuple[str, ...]:
    """Return the warning for a file that holds less than its header promises, or more, if it does."""
    if abs(promised_s - held_s) <= 0.01:
        return ()
    seconds = f"promises {promised_s:.2f} s, the file holds {held_s:.2f} s"
    if promised_s > held_s:
        return (f"truncated: the header {seconds}",)
    return (f"stale header: it {seconds}, all of which is read",)


# --- FFmpeg


class FFmpegDecoder(Decoder):
    """One sound track of a file, from 1; with 0 the one with most speech.

    An AudioError is raised where the file is damaged, without a sound track, or in a codec that FFmpeg does
    not know.
    """

    def __init__(self, file: Part, track: int = 0, cut: str = "") -> None:
        import av

        self.cut = cut
        mp3_frames = _mp3_frames(file)
        self._file = _opened(file)
        format_ = self._file.format.name
        n = len(self._file.streams.audio)
        if not n:
            raise AudioError("has no sound track")
        if track > n:
            raise AudioError(f"has {n} sound track{'s' * (n > 1)}, no track {track}")
        if n > 1 and not track:
            track = max(range(1, n + 1), key=lambda track: (_speech_frames(file, track), -track))
            self._file = _opened(file)
            self.damage = (f"not all read: {n} sound tracks, this is number {track}; --track takes another",)
        self._stream = self._file.streams.audio[max(track, 1) - 1]
        codec = self._stream.codec_context
        if codec is None:
            raise AudioError(
                "not audio that can be read (its codec is unknown)", "Convert the file to WAV or FLAC"
            )
        if format_ == "flac":  # a frame whose checksum is wrong would be noise
            codec.options = {"err_detect": "crccheck+explode"}
        if codec.name == "alac":  # its last packet is short, as some headers say again
            codec.flags2 |= av.codec.context.Flags2.skip_manual
        self._is_counted = format_ in _COUNTED
        self._pieces = self._decoded("amr" in codec.name)
        self.sr = 0  # of the first decoded frame: headers of AAC tell half the rate
        first = next(self._pieces, None)
        if first is None:
            raise AudioError("not audio that can be read (not a frame of its sound can be decoded)")
        self._rest = first
        duration = self._stream.duration and float(self._stream.duration * self._stream.time_base)
        if not duration and self._file.duration and n == 1:  # else of the longest track
            duration = self._file.duration / 1e6
        self.estimated_s = duration or 0.0
        promised = round(self.estimated_s * self.sr) if self._is_counted else 0
        self.frames = (mp3_frames if format_ == "mp3" else promised) or None
        # The last block of an Ogg stream is longer than its sound.
        self._is_bounded = format_ == "ogg" and not cut

    def _read(self, n: int) -> NDArray[np.float32]:
        if self._is_bounded and self.frames:
            n = min(n, self.frames - self.held)
        parts, held = [self._rest], len(self._rest)
        while held < n and (piece := next(self._pieces, None)) is not None:
            parts.append(piece)
            held += len(piece)
        y = np.concatenate(parts)
        self._rest = y[n:]
        return y[:n]

    def _decoded(self, is_amr: bool) -> Iterator[NDArray[np.float32]]:
        """Yield what each frame holds [shape=(n, channels)] as long as rate and channels stay the same."""
        held, good, lost, failed = 0, 0, 0, 0
        for frames in self._frames():
            if frames is None or (not frames and is_amr):
                failed += 1
            good += bool(frames)
            for frame in frames or ():
                y = _samples(frame)
                channels = y.shape[1]
                if not self.sr:
                    self.sr, self.channels = frame.sample_rate, channels
                if (frame.sample_rate, channels) != (self.sr, self.channels):
                    what = form(channels, frame.sample_rate)
                    after = f"after {held / self.sr:.2f} s"
                    self.damage += (f"not all read: {after} a recording of {what} follows",)
                    return
                if is_amr:  # a phone sends nothing for a pause
                    held += failed * len(y)
                    good += failed
                    yield np.zeros((failed * len(y), channels), np.float32)
                else:
                    lost += failed
                failed, held = 0, held + len(y)
                yield y
        if is_amr and good:
            yield np.zeros((failed * held // good, self.channels), np.float32)
            failed = 0
        # Behind the last sound of a file without an index stand tags and padding, which are no frames.
        lost += failed if self._is_counted or failed > good else 0
        if lost > good > 0:  # what is left is no voice
            raise AudioError(f"damaged: {lost} of {lost + good} parts of its sound cannot be decoded")
        if lost:
            self.damage += (f"damaged: {lost} part{'s' * (lost > 1)} of its sound cannot be decoded",)

    def _frames(self) -> Iterator[list[Any] | None]:
        """Yield the frames of each packet; None for one that cannot be decoded, which costs no other."""
        import av

        packets, empty = self._file.demux(self._stream), 0
        while empty < _MOST_EMPTY_PACKETS:
            try:
                packet = next(packets)
                frames = packet.decode()
                if not frames and not packet.size:  # the end
                    return
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError, ValueError, MemoryError):
                frames = None
            empty = 0 if frames else empty + 1
            yield frames

    def _wrong(self, held_s: float) -> tuple[str, ...]:
        promised_s = (self.frames or 0) / self.sr
        if held_s >= _CUT_SHARE * promised_s - max(_CUT_S, _CUT_SAMPLES / self.sr):
            return ()
        return _wrong_length(promised_s, held_s)


def _opened(file: Part) -> Any:
    import av

    file.seek(0)
    whitelists = {"format_whitelist": ",".join(_FORMATS), "protocol_whitelist": "none"}
    try:
        return av.open(file, metadata_errors="ignore", options=whitelists)
    except (av.error.FFmpegError, OSError, ValueError, MemoryError):
        raise UnknownFormatError("not audio that can be read (format not recognised, or damaged)") from None


def _mp3_frames(file: Part) -> int:
    """Return how many samples an MP3 promises; 0 where it does not say."""
    file.seek(0)
    head = file.read(64)
    match = _MP3_COUNT.search(head)
    return int.from_bytes(match[1], "big") * (1152 if head[1] & 8 else 576) if match else 0


def _samples(frame: Any) -> NDArray[np.float32]:
    """Return what a frame holds [shape=(n, channels)], full scale at 1."""
    y: NDArray[Any] = frame.to_ndarray()
    y = y.T if frame.format.is_planar else y.reshape(-1, frame.layout.nb_channels)
    if y.dtype.kind == "f":
        with np.errstate(over="ignore"):  # infinities are refused in their place
            return np.asarray(y, np.float32)
    half = 2.0 ** (8 * y.dtype.itemsize - 1)
    if y.dtype.kind == "u":
        y = y - half
    return np.asarray(y, np.float32) * np.float32(1 / half)


def _speech_frames(file: Part, track: int) -> int:
    """Count the frames of 10 ms with speech at the beginning of a sound track."""
    try:
        decoder = FFmpegDecoder(file, track)
    except AudioError:
        return -1
    y = decoder.read(round(_LOOKED_AT_S * decoder.sr)).mean(axis=1)
    runs = vad.detect_speech(vad.measure([y], decoder.sr).levels)
    return int((runs[:, 1] - runs[:, 0]).sum())
