"""Which files are opened at all, and with what: by how they begin, whatever they are called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from speechemo_cli.errors import AudioError

if TYPE_CHECKING:
    from typing import BinaryIO

# How files begin that libsndfile does not read and ffmpeg does: MP4 and M4A, WebM and Matroska, WMA, AMR,
# AAC, AVI, FLV. Nothing else is handed to ffmpeg, which would take a text for a playlist with URLs.
_FOR_FFMPEG = (
    (4, b"ftyp"),
    (0, b"\x1aE\xdf\xa3"),
    (0, b"0&\xb2u\x8ef\xcf\x11"),
    (0, b"#!AMR"),
    (0, b"\xff\xf1"),
    (0, b"\xff\xf9"),
    (8, b"AVI "),
    (0, b"FLV"),
    # In Ogg, behind the header of a page.
    (28, b"\x7fFLAC"),
    (28, b"\x80theora"),
    (28, b"Speex"),
)
# So many printable ones, and no others, make a text.
_TEXT_BYTES = 512
_CODECS = frozenset(
    {
        *("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
        *("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"),
        *("IMA_ADPCM", "MS_ADPCM", "GSM610"),  # voicemail and dictaphones
    }
)
# The telephone's rate to the highest that recorders have.
LOWEST_SR, HIGHEST_SR = 8_000, 384_000
MOST_CHANNELS = 32


def needs_ffmpeg(head: bytes) -> bool:
    """Whether a file that begins with these `containers.HEAD_BYTES` is one for ffmpeg."""
    return any(head[at : at + len(mark)] == mark for at, mark in _FOR_FFMPEG)


def check(decoder: Any) -> None:
    """Refuse what no voice is recorded in.

    Parameters
    ----------
    decoder : soundfile.SoundFile

    Raises
    ------
    AudioError
        Its codec, rate or number of channels.
    """
    if decoder.subtype not in _CODECS:
        raise AudioError(f"{decoder.subtype} is not read", "Convert the file to WAV or FLAC")
    if not LOWEST_SR <= decoder.samplerate <= HIGHEST_SR:
        raise AudioError(f"a rate of {decoder.samplerate} Hz, expected {LOWEST_SR} to {HIGHEST_SR} Hz")
    if decoder.channels > MOST_CHANNELS:
        raise AudioError(f"{decoder.channels} channels, expected {MOST_CHANNELS} at most")


def named(file: BinaryIO) -> str:
    """Name what is no audio, as far as its first bytes tell."""
    file.seek(0)
    first = file.read(_TEXT_BYTES)
    text = first.isascii() and first.decode("ascii").replace("\n", " ").replace("\r", " ").isprintable()
    return "it is text" if text else "format not recognised"
