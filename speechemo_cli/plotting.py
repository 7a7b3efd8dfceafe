"""How matplotlib is set up, wherever something is drawn."""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from speechemo_cli.files import atomic_path, display_name, scratch_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# matplotlib's own, then what Linux, Windows and macOS bring for alphabets that it lacks.
_FONTS = (
    *("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei"),
    *("Droid Sans Fallback", "Noto Sans Devanagari", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
    *("Nirmala UI", "Arial Unicode MS", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo"),
)


@contextmanager
def drawing() -> Iterator[None]:
    """Draw without mathematics, in a font that has the letters where one is installed, and without warnings.

    As a decorator it holds for a function.
    """
    # matplotlib writes a font cache; its home may not exist or not be writable.
    os.environ.setdefault("MPLCONFIGDIR", str(scratch_folder()))
    import matplotlib as mpl

    with mpl.rc_context({"font.family": _installed(), "text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        yield


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure of so many inches, which finds room for its labels by itself."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def save_png(figure: Any, path: Path) -> None:
    """Write a figure, complete or not at all; the same figure gives the same bytes."""
    with atomic_path(path) as temp:
        figure.savefig(temp, format="png", metadata={"Software": None})


def drawable(text: str) -> str:
    """Write letters that no installed font has as escapes."""
    known = _letters()
    shown = display_name(text)
    return "".join(c if ord(c) in known else c.encode("unicode_escape").decode("ascii") for c in shown)


@cache
def _installed() -> list[str]:
    from matplotlib.font_manager import fontManager

    names = {font.name for font in fontManager.ttflist}
    return [name for name in _FONTS if name in names]


@cache
def _letters() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset[int]().union(*(get_font(findfont(name)).get_charmap() for name in _installed()))
