"""The pages: commands run as they stand there, one block after the other, and links lead somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import soundfile
from conftest import path_with_speechemo

from speechemo_cli.cli.app import COMMANDS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
# Blocks to run are marked sh; a console block shows what came out.
BLOCKS = {
    f"{page.stem}-{number}": block
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    )
}
# Trains the model that the other pages use.
FIRST = next(block for block in BLOCKS.values() if "speechemo train" in block)
# What these do is tested elsewhere on less.
LONG = [name for name, block in BLOCKS.items() if re.search("speechemo (evaluate|export|show) ", block)]
LINKED = [
    *PAGES,
    *(ROOT / name for name in ("CONTRIBUTING.md", "RESULTS.md", "SECURITY.md", "data/README.md")),
]


@pytest.fixture(scope="module")
def place(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder as the pages assume it: clips in data/, clip.wav and other.flac, speechemo on the PATH.

    A quarter of the clips of four actors, and few epochs, show that the commands run; what they reach is in
    RESULTS.md.
    """
    folder = tmp_path_factory.mktemp("docs")
    for path in corpus_folder.glob("*/*-02-02-0?.wav"):
        target = folder / "data" / path.relative_to(corpus_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.copy(corpus_folder / "Actor_01" / "03-01-05-02-01-01-01.wav", folder / "clip.wav")
    y, sr = soundfile.read(corpus_folder / "Actor_02" / "03-01-04-02-01-01-02.wav")
    soundfile.write(folder / "other.flac", y, sr)
    settings = {"SPEECHEMO_TRAIN_EPOCHS": "2", "SPEECHEMO_AUGMENT_COPIES": "1"}
    return folder, {
        **os.environ,
        "PATH": path_with_speechemo(folder / "bin"),
        "PYTHONPATH": str(ROOT),
        **settings,
    }


def run_block(block: str, place: tuple[Path, dict[str, str]]) -> str:
    folder, env = place
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,  # none of them is one that goes on
    )
    assert done.returncode == 0, done.stderr
    assert not re.search(r"^[IWE]\d{4} |tensorflow", done.stderr, re.IGNORECASE | re.MULTILINE)
    return done.stdout


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in BLOCKS]
)
def test_block_of_a_page_runs_as_written(name: str, place: tuple[Path, dict[str, str]]) -> None:
    block = BLOCKS[name]
    if block.startswith("make "):
        pytest.skip("make run and make test are what runs this")
    for tool in ("jq", "ffmpeg"):
        if f"{tool} -" in block and shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    if name in LONG and not (place[0] / "models" / "v2.keras").exists():
        run_block(FIRST, place)

    assert run_block(block, place)


def _anchors(page: Path) -> set[str]:
    """Return what the headings of a page are called in links."""
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.is_file(), link
        assert not anchor or anchor in _anchors(target), link


def test_pages_explain_every_command_and_exit_code() -> None:
    commands = README.read_text("utf-8").partition("## Commands")[2]
    for command in COMMANDS:
        assert re.search(rf"`(speechemo )?{command}\b", commands), command
    exit_codes = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    for code in (0, 1, 2, 3, 4, 5, 6, 129, 130, 141, 143):
        assert re.search(rf"^\| (\d+, )*{code}[ ,]", exit_codes, flags=re.MULTILINE), code


def test_tests_that_the_page_on_reliability_names_are_there() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    for files, terms in re.findall(r"`pytest ((?:tests/\S+ )+)-k (\"[^\"]+\"|\S+)`", page):
        sources = [ROOT / "tests" / "audio_cases.py", *map(ROOT.joinpath, files.split())]
        tests = "\n".join(source.read_text("utf-8") for source in sources)
        for term in terms.strip('"').split(" or "):
            assert term in tests, f"{files}-k {term}"


def test_menu_of_the_site_has_every_page() -> None:
    menu = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2]
    for page in PAGES[1:]:
        assert f" {page.name}\n" in menu, page.name


def test_make_targets_of_the_pages_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    pages = "\n".join(page.read_text("utf-8") for page in LINKED)
    for target in set(re.findall(r"(?:`|^ *)make ([a-z-]+)", pages, flags=re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
