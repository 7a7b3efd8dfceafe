"""What libsndfile does not read (m4a, webm, video) goes through ffmpeg, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from speechemo_cli.audio.source import MOST_SAMPLES
from speechemo_cli.errors import AudioError
from speechemo_cli.files import display_name, scratch_folder

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

# The readers of what `formats.needs_ffmpeg` knows by its first bytes. Many others follow names in the file.
_READERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,asf,amr,aac,avi,flv"
# Where it is to stop after some seconds of sound, it may take as long as those, and this.
_PATIENCE_S = 60.0


@contextmanager
def decoded(source: bytes | str | os.PathLike[str], max_duration_s: float | None = None) -> Iterator[Path]:
    """Let ffmpeg decode the first sound track of a file.

    Parameters
    ----------
    source : bytes or path-like
        What the file holds, or where it is.
    max_duration_s : float, optional
        Where to stop.

    Yields
    ------
    Path
        A W64 file of float32 samples at the rate and with the channels of the source; it goes with the
        block. (A WAV file of three hours would be longer than its header can say.)

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
        try:
            done = subprocess.run(  # noqa: S603
                [program, *arguments, f"file:{target}"], capture_output=True, check=False, timeout=patience_s
            )
        except subprocess.TimeoutExpired:
            raise AudioError(f"ffmpeg takes longer than {patience_s:.0f} s to read it") from None
        if done.returncode or not target.exists():
            said = done.stderr.decode("utf-8", "replace").strip()
            said = said.replace(f"file:{given}", "the file").replace(str(given), "the file")
            reason = display_name((said.splitlines() or ["no reason given"])[-1])[:200]
            raise AudioError(f"ffmpeg cannot read it ({reason})")
        if max_duration_s is not None and target.stat().st_size >= 4 * MOST_SAMPLES:
            raise AudioError(f"more than {MOST_SAMPLES} samples", "Convert it to one channel at 16 kHz")
        yield target
