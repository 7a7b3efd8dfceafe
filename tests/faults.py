"""Make the first, the second, the n-th operation on files fail, as SQLite's tests do: what is left behind?"""

from __future__ import annotations

import builtins
import errno
import io
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from speechemo_cli.errors import AccessError

_CALLS = {
    "fsync": ("fsync",),
    "mkdir": ("mkdir",),
    "replace": ("replace", "rename"),
    "unlink": ("unlink", "rmdir"),
    "write": ("sendfile",) if hasattr(os, "sendfile") else (),  # how shutil copies
}
WRITING = ("open", "write", "fsync", "mkdir", "replace")


class Faults:
    """A context in which one operation on files fails, and all after it where it lasts.

    Operations are counted from 1. What is written to a file that fails is half written. An AccessError
    that leaves the context ends there, and is kept in `error`.
    """

    def __init__(
        self, at: int, kinds: tuple[str, ...] = WRITING, *, lasting: bool = False, code: int = errno.ENOSPC
    ) -> None:
        self._at, self._kinds, self._lasting, self._code = at, kinds, lasting, code
        self._count = 0
        self.error: AccessError | None = None

    @property
    def hit(self) -> bool:
        return self._count >= self._at

    def step(self, kind: str) -> None:
        self._count += kind in self._kinds
        if kind in self._kinds and (self._count == self._at or (self._lasting and self.hit)):
            self.fail()

    def fail(self) -> None:
        raise OSError(self._code, os.strerror(self._code))

    def __enter__(self) -> Self:
        self._patch, self._open = pytest.MonkeyPatch(), io.open
        for kind, names in _CALLS.items():
            for name in names:
                self._patch.setattr(os, name, self._counted(kind, getattr(os, name)))
        for module in (io, builtins):
            self._patch.setattr(module, "open", self._opened)
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> bool:
        self._patch.undo()
        self.error = error if isinstance(error, AccessError) else None
        return self.error is not None

    def _counted(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **more: Any) -> Any:
            self.step(kind)
            return call(*arguments, **more)

        return counted

    def _opened(self, file: Any, mode: str = "r", buffering: int = -1, *text: Any, **more: Any) -> Any:
        if not set(mode) & set("wax+"):
            return self._open(file, mode, buffering, *text, **more)
        self.step("open")
        raw = _HalfWritten(self, file, mode.replace("b", "").replace("t", ""))
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *text, **more)


class _HalfWritten(io.FileIO):
    def __init__(self, faults: Faults, file: Any, mode: str) -> None:
        super().__init__(file, mode)
        self._faults = faults

    def write(self, content: Any) -> int:
        try:
            self._faults.step("write")
        except BaseException:
            super().write(bytes(content)[: len(content) // 2])
            raise
        return super().write(content)


def each_fault(*kinds: str, lasting: bool = False) -> Iterator[Faults]:
    """Let the first operation fail, then the second ... until a run gets through without a failure."""
    for at in itertools.count(1):
        faults = Faults(at, kinds, lasting=lasting)
        yield faults
        if not faults.hit:
            return


class _Crash(Faults):
    def fail(self) -> None:
        os._exit(137)


def each_crash(
    prepare: Callable[[], Path], action: Callable[[Path], object], *kinds: str
) -> Iterator[tuple[Path, bool]]:
    """Do it in a process that ends at the first operation, at the second ... until one gets through.

    Yields what `prepare` gave and `action` took, and whether the process got through.
    """
    for at in itertools.count(1):
        prepared = prepare()
        child = os.fork()
        if child == 0:
            try:
                with _Crash(at, kinds):
                    action(prepared)
                os._exit(0)
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 137)
        yield prepared, code == 0
        if code == 0:
            return
