"""What libsndfile does not read (m4a, webm, video) goes through ffmpeg, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from speechemo_cli.errors import AudioError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator


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
        ffmpeg is not installed, or cannot read it.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise AudioError("only ffmpeg reads this format", "Install ffmpeg, or convert the file to WAV")
    with tempfile.TemporaryDirectory(prefix="speechemo-") as folder:
        given, target = Path(folder, "given"), Path(folder, "decoded.w64")
        if isinstance(source, bytes):
            given.write_bytes(source)  # not a pipe: the index of an MP4 may stand at its end
        else:
            given = Path(source).resolve()
        # `file:` and the whitelist keep a name or a content from being taken for a URL.
        arguments = ["-nostdin", "-v", "error", "-protocol_whitelist", "file", "-i", f"file:{given}"]
        arguments += ["-map", "0:a:0", "-c:a", "pcm_f32le"]
        if max_duration_s is not None:
            arguments += ["-t", f"{max_duration_s:g}"]
        done = subprocess.run(  # noqa: S603
            [program, *arguments, f"file:{target}"], capture_output=True, check=False
        )
        if done.returncode or not target.exists():
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
            reason = lines[-1].replace(f"file:{given}", "the file").replace(str(given), "the file")[:200]
            raise AudioError(f"ffmpeg cannot read it ({reason})")
        yield target
