"""Brings the pages beside docs/ into the site; mkdocs calls it (`hooks` in mkdocs.yml)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
# Where the site has what lies outside docs/.
OUTSIDE = {
    "README.md": "index.md",
    "RESULTS.md": "RESULTS.md",
    "SECURITY.md": "SECURITY.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "NOTICE": "NOTICE.txt",
    "examples/quickstart.ipynb": "quickstart.ipynb",
    "speechemo_cli/corpus/corpora.toml": "corpora.toml.txt",
}


def on_files(files: Files, config: Any) -> Files:
    """Add them to the files of the site."""
    for path, name in OUTSIDE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Change links between the two to where the site has them."""

    def moved(link: re.Match[str]) -> str:
        path = link[1].removeprefix("../")
        return f"]({OUTSIDE.get(path, path.removeprefix('docs/'))}"

    return re.sub(r"\]\((?!https:|#)([^)#\s]+)", moved, markdown)
