"""One error tree. Every leaf carries its exit code, what went wrong and how to fix it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

# Version of the records and documents of docs/formats.md.
SCHEMA = 1


class ExitCode(IntEnum):
    """What the process tells the shell. Documented in the README; scripts rely on it."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    SOME_FAILED = 3
    UNUSABLE_FILE = 4
    CANNOT_ACCESS = 5
    NO_INPUT = 6
    INTERRUPTED = 130
    STDOUT_CLOSED = 141


class SpeechemoError(Exception):
    """Root of every error this package raises on purpose.

    Parameters
    ----------
    message : str
        What happened: received and expected, in one line.
    hint : str, optional
        What to do about it, in one sentence.
    """

    exit_code = ExitCode.INTERNAL

    def __init_subclass__(cls, exit_code: ExitCode | None = None) -> None:
        cls.exit_code = exit_code or cls.exit_code

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[type[SpeechemoError], tuple[str, str]]:
        # The default would drop the hint on the way back from a worker process.
        return type(self), (self.message, self.hint)


class ConfigError(SpeechemoError, exit_code=ExitCode.USAGE):
    """A config key or value that cannot be used."""


class DataError(SpeechemoError, exit_code=ExitCode.USAGE):
    """The clips at hand do not allow what was asked for (too few classes, speakers, ...)."""


class LeakError(SpeechemoError, exit_code=ExitCode.USAGE):
    """The same recording, or the same speaker, would stand in training and in test."""


class AudioError(SpeechemoError, exit_code=ExitCode.SOME_FAILED):
    """One clip that cannot be used. It never stops the others."""


@dataclass(frozen=True)
class ClipError:
    """A clip, or one channel of it, that cannot be used, and why."""

    path: str
    error: str
    channel: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the record of docs/formats.md."""
        channel = {} if self.channel is None else {"channel": self.channel}
        return {"schema": SCHEMA, "path": str(self.path), **channel, "status": "error", "error": self.error}


class UnknownFormatError(AudioError):
    """The bytes of a file are of no format that speech comes in, or it is damaged where that stands."""


class ModelFileError(SpeechemoError, exit_code=ExitCode.UNUSABLE_FILE):
    """A model file that is damaged, foreign or does not fit."""


class StoreError(SpeechemoError, exit_code=ExitCode.UNUSABLE_FILE):
    """A feature store that is damaged, foreign or does not fit."""


class AccessError(SpeechemoError, exit_code=ExitCode.CANNOT_ACCESS):
    """Something cannot be read or written: permission, disk full."""


class NoInputError(SpeechemoError, exit_code=ExitCode.NO_INPUT):
    """Nothing to work on."""
