"""Decode clips in processes of their own: a file that crashes a decoder costs one clip, not the run.

Plain samples are read in place: nothing decodes them.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.audio import decode, reader
from speechemo_cli.audio.reader import Recording
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError
from speechemo_cli.processes import CRASHED, Pool

if TYPE_CHECKING:
    from collections.abc import Callable

# Ten minutes of sound take a few seconds.
TIMEOUT_S = 60.0
# The most samples that are decoded at once, twice, and the libraries.
_MEMORY_BYTES = 6 * 2**30


class DecoderPool:
    """Processes that decode clips, as many as threads ask at a time; `close` ends them."""

    def __init__(self, config: AudioConfig, channel: str = "mix") -> None:
        self._config = config
        self._channel = channel
        self._pool = Pool(f"{__name__}:load_decoder", asdict(config), channel)
        self.close = self._pool.close

    def read_channels(self, path: str, content: bytes | None = None) -> list[Recording]:
        """Do what `reader.read_channels` does, elsewhere where something is to be decoded.

        Raises AudioError as that does, and where a process died of the clip twice, or took too long.
        """
        if content is None:
            content = reader.read_bytes(path, self._config)
        here = len(content) > reader.LARGEST_BYTES or self._config.raw_sr
        if here or decode.is_plain(io.BytesIO(content)):
            return reader.read_channels(path, self._config, self._channel, content)
        for _ in range(2):  # what a process died of may have been the memory that others took
            try:
                facts, samples = self._pool.ask({"path": path}, content, timeout_s=TIMEOUT_S)
            except TimeoutError:
                raise AudioError(f"takes longer than {TIMEOUT_S:.0f} s to decode") from None
            except EOFError:
                continue
            except OSError:  # none can be started
                return reader.read_channels(path, self._config, self._channel, content)
            ends = np.cumsum([n for n, *_ in facts])
            parts = np.split(np.frombuffer(samples, np.float32), ends[:-1])
            return [
                Recording(y, sr, sha256, tuple(warnings), channel, offset)
                for y, (_, sr, sha256, warnings, channel, offset) in zip(parts, facts, strict=True)
            ]
        raise AudioError(CRASHED)


def load_decoder(config: dict[str, Any], channel: str) -> Callable[[dict[str, Any], bytes], Any]:
    """Return what a process of the pool answers with: fields of recordings, and their samples."""
    # A decoder that wants more memory than any clip needs fails, and nothing else with it.
    with suppress(ImportError, ValueError, OSError):  # Windows has no such module
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    audio = AudioConfig(**config)

    def answer(request: dict[str, Any], content: bytes) -> Any:
        with reader.clip_errors():
            found = reader.read_channels(request["path"], audio, channel, content)
        facts = [
            (len(one.decoded), one.sr, one.sha256, one.warnings, one.channel, one.offset) for one in found
        ]
        return facts, [np.ascontiguousarray(one.decoded, np.float32) for one in found]

    return answer
