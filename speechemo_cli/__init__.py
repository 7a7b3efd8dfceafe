"""speechemo: speech emotion recognition on the command line.

The public names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speechemo_cli.config import Config as Config
    from speechemo_cli.errors import ClipError as ClipError
    from speechemo_cli.errors import SpeechemoError as SpeechemoError
    from speechemo_cli.features.dataset import FeatureTable as FeatureTable
    from speechemo_cli.features.dataset import load_features as load_features
    from speechemo_cli.formatting import progress_lines as progress_lines
    from speechemo_cli.inference.predictor import Answer as Answer
    from speechemo_cli.inference.predictor import Predictor as Predictor
    from speechemo_cli.inference.timeline import Timeline as Timeline

__version__ = "0.1.0"

_HOME = {
    "Answer": "inference.predictor",
    "ClipError": "errors",
    "Config": "config",
    "FeatureTable": "features.dataset",
    "Predictor": "inference.predictor",
    "SpeechemoError": "errors",
    "Timeline": "inference.timeline",
    "load_features": "features.dataset",
    "progress_lines": "formatting",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
