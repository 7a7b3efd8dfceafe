"""What worker processes of the tests of `serve` load: a module that imports little, as each imports it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from speechemo_cli.errors import AudioError


def load() -> Callable[[dict[str, Any], bytes], tuple[dict[str, Any]]]:
    def answer(request: dict[str, Any], _content: bytes) -> tuple[dict[str, Any]]:
        print("a decoder prints")  # noqa: T201
        match request["do"]:
            case "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stall":
                time.sleep(60)
            case "refuse":
                raise AudioError("silent", "Say something")
            case "break":
                raise OverflowError("of ours")
        return ({"pid": os.getpid()},)

    return answer


def load_nothing() -> Any:
    raise OverflowError("no model")
