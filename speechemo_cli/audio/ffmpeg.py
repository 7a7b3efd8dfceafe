"""What libsndfile does not read (m4a, webm, video) goes through ffmpeg, where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from speechemo_cli import processes
from speechemo_cli.audio.source import MOST_SAMPLES
from speechemo_cli.errors import AudioError
from speechemo_cli.files import display_name, scratch_folder

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

# The readers of what `formats.needs_ffmpeg` knows by its first bytes. Many others follow names in the file.
_READERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,asf,amr,aac,avi,flv,ogg"
# Where it is to stop after some seconds of sound, it may take as long as those, and this.
_PATIENCE_S = 60.0
# It may have something to say of every frame.
_MOST_SAID_BYTES = 2**20
# Which of its parts speaks, and where that lies in memory.
_SPEAKER = re.compile(r"\[[^][]* @ [^][]*\] *")


@dataclass(frozen=True)
class Decoded:
    """What ffmpeg made of a file.

    Attributes
    ----------
    path : Path
        A W64 file of float32 samples at the rate and with the channels of the source. (A WAV file of three
        hours would be longer than its header can say.)
    warnings : tuple of str
        That the source is damaged, if it is.
    """

    path: Path
    warnings: tuple[str, ...]


@contextmanager
def decoded(source: bytes | str | os.PathLike[str], max_duration_s: float | None = None) -> Iterator[Decoded]:
    """Let ffmpeg decode the first sound track of a file.

    Parameters
    ----------
    source : bytes or path-like
        What the file holds, or where it is.
    max_duration_s : float, optional
        Where to stop.

    Yields
    ------
    Decoded
        Its file goes with the block.

    Raises
    ------
    AudioError
        ffmpeg is not installed, cannot read it, or takes longer than the sound lasts.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise AudioError("only ffmpeg reads this format", "Install ffmpeg, or convert the file to WAV")
    with tempfile.TemporaryDirectory(dir=scratch_folder()) as folder:
        given, target = Path(folder, "given"), Path(folder, "decoded.w64")
        if isinstance(source, bytes):
            given.write_bytes(source)  # not a pipe: the index of an MP4 may stand at its end
        else:
            given = Path(source).resolve()
        # `file:` and the lists keep a name or a content from being taken for a URL.
        arguments = ["-nostdin", "-v", "error", "-protocol_whitelist", "file", "-format_whitelist", _READERS]
        arguments += ["-i", f"file:{given}", "-map", "0:a:0", "-c:a", "pcm_f32le"]
        patience_s = None
        if max_duration_s is not None:
            arguments += ["-t", f"{max_duration_s:g}", "-fs", str(4 * MOST_SAMPLES)]
            patience_s = _PATIENCE_S + max_duration_s
        with Path(folder, "said").open("w+b") as stderr:
            try:
                status = processes.run([program, *arguments, f"file:{target}"], stderr, patience_s)
            except subprocess.TimeoutExpired:
                raise AudioError(f"ffmpeg takes longer than {patience_s:.0f} s to read it") from None
            said = _said(stderr, given)
        if status or not target.exists():
            raise AudioError(f"ffmpeg cannot read it ({said[-1] if said else 'no reason given'})")
        if max_duration_s is not None and target.stat().st_size >= 4 * MOST_SAMPLES:
            raise AudioError(f"more than {MOST_SAMPLES} samples", "Convert it to one channel at 16 kHz")
        more = f", and {len(said) - 1} more" if len(said) > 1 else ""
        yield Decoded(target, (f'damaged: ffmpeg reports "{said[0]}"{more}',) if said else ())


def _said(stderr: IO[bytes], given: Path) -> list[str]:
    """Return the lines that ffmpeg wrote, fit to be shown."""
    stderr.seek(0)
    said = stderr.read(_MOST_SAID_BYTES).decode("utf-8", "replace")
    said = said.replace(f"file:{given}", "the file").replace(str(given), "the file")
    lines = (display_name(_SPEAKER.sub("", line).strip())[:200] for line in said.splitlines())
    return [line for line in lines if line]
