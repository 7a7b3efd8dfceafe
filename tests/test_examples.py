"""The notebooks of examples/ run from the first cell to the last, and are kept without outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import path_with_speechemo

ROOT = Path(__file__).parents[1]
QUICKSTART = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text("utf-8"))
CELLS = [cell for cell in QUICKSTART["cells"] if cell["cell_type"] == "code"]
# A cell that begins with ! is a command. What else Jupyter does is to show the last value.
RUNNER = """
import ast, json, subprocess, sys

cells, names, shown = json.load(sys.stdin), {}, []
for cell in cells:
    if cell.startswith("!"):
        subprocess.run(cell[1:], shell=True, check=True, stdout=sys.stderr)
        continue
    body = ast.parse(cell).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "<cell>", "exec"), names)
    if last:
        value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
        shown.append(value._repr_html_() if hasattr(value, "_repr_html_") else str(value))
with open("shown.json", "w") as file:
    json.dump({"shown": shown, "uar": names["uar"]}, file)
"""


@pytest.mark.slow
def test_quickstart_runs_as_it_stands(tmp_path: Path) -> None:
    env = {"PATH": path_with_speechemo(tmp_path / "bin"), "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}

    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(["".join(cell["source"]) for cell in CELLS]),
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert "extracting: 240/240 (100 %)" in done.stdout
    result = json.loads(Path("shown.json").read_text())
    assert result["uar"] > 2 / 8  # twice as often right as by chance
    predictor, answer, timeline = (html for html in result["shown"] if html.startswith("<b>"))
    assert "models/v1.keras" in predictor
    assert answer.count("<tr>") == 8
    assert timeline.count("<tr>") == 3
    assert Path("confusion.png").stat().st_size > 1000


def test_quickstart_has_no_outputs() -> None:
    assert not any(cell["outputs"] or cell["execution_count"] for cell in CELLS)
