"""The names of the package: all there, and loaded when they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ABSENT

import speechemo_cli


def test_public_names_are_there() -> None:
    assert all(getattr(speechemo_cli, name) is not None for name in speechemo_cli.__all__)
    assert dir(speechemo_cli) == sorted(speechemo_cli.__all__)
    with pytest.raises(AttributeError, match="no attribute 'predict'"):
        speechemo_cli.predict  # noqa: B018


def test_package_and_its_functions_are_loaded_without_anything_heavy() -> None:
    code = (
        "import sys, speechemo_cli; light = 'numpy' not in sys.modules; speechemo_cli.load_features;"
        f"print(light, {set(ABSENT)} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "True set()\n"
