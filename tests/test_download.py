"""Fetching RAVDESS, from a server on this machine: whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import stat
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from speechemo_cli.cli import app
from speechemo_cli.corpus import download
from speechemo_cli.corpus.known import BY_NAME
from speechemo_cli.errors import AccessError, ConfigError

CLIPS = [f"Actor_{actor:02}/03-01-05-01-01-01-{actor:02}.wav" for actor in range(1, 25)]


def zipped(members: dict[str, bytes], kind: int = 0) -> bytes:
    """A zip file; `kind` is what stat calls the mode of its members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = kind << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


WHOLE = zipped({name: name.encode() * 5000 for name in CLIPS})
MD5 = hashlib.md5(WHOLE).hexdigest()


class Server(ThreadingHTTPServer):
    """Zenodo's interface with one file; the attributes say how it fails."""

    content = WHOLE
    status = 200
    declared = 0  # bytes more than it sends
    wait_s = 0.0
    fetched = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, status, more = self.server, 200, 0
        if self.path == "/content":
            server.fetched += 1
            time.sleep(server.wait_s)
            content, status, more = server.content, server.status, server.declared
        else:
            assert self.path == f"/{download.RECORD}"
            links = {"self": f"{server.url}/content"}
            listed = {"key": download.SPEECH.file, "checksum": f"md5:{MD5}", "links": links}
            content = json.dumps({"files": [{"key": "Other.zip"}, listed]}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) + more))
        self.end_headers()
        with suppress(OSError):  # who asked has gone
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    # It waits a second before it tries again.
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda _: None))
    with Server(("127.0.0.1", 0), _Handler) as server:
        monkeypatch.setenv("SPEECHEMO_TEST_DOWNLOAD_URL", server.url)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> download.Archive:
    """The archive of speech as the server has it."""
    part = download.SPEECH._replace(clips=len(CLIPS), md5=MD5)
    monkeypatch.setattr(download, "SPEECH", part)
    return part


@pytest.fixture
def run(server: Server, part: download.Archive, capsys: pytest.CaptureFixture[str]) -> Callable:
    """Run `speechemo download` against the server: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = app.run(["download", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


def left_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_download_shows_the_licence_and_unpacks_every_clip_of_what_it_fetches_or_is_given(
    run: Callable, server: Server
) -> None:
    code, out, err = run("ravdess")

    assert (code, out) == (0, "data/ravdess: 24 clips\n")
    assert "licence: CC BY-NC-SA 4.0" in err
    assert "Livingstone SR, Russo FA (2018)" in err
    unpacked = {str(path.relative_to("data/ravdess")): path.read_bytes() for path in left_in(Path("data"))}
    assert unpacked == {name: name.encode() * 5000 for name in CLIPS}

    assert run("ravdess")[:2] == (0, "data/ravdess: 24 clips\n")
    Path("my.zip").write_bytes(WHOLE)
    assert run("ravdess", "--archive", "my.zip", "--to", "clips")[:2] == (0, "clips/ravdess: 24 clips\n")
    assert server.fetched == 1
    assert Path("my.zip").read_bytes() == WHOLE


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 404}, "the server answered 404"),
        ({"declared": 9}, "no connection, or it broke off"),
        ({"content": WHOLE[:-9] + b"otherwise"}, "another checksum than expected"),
    ],
)
def test_download_that_fails_leaves_nothing_and_exits_with_5(
    fault: dict[str, Any], message: str, run: Callable, server: Server
) -> None:
    vars(server).update(fault)

    code, out, err = run("ravdess")

    assert (code, out) == (5, "")
    assert err.splitlines()[-1].startswith(f"error: cannot download {server.url}/content: ")
    assert message in err
    assert left_in(Path("data")) == []
    assert not Path("data/ravdess").exists()

    for name in fault:
        delattr(server, name)
    assert run("ravdess")[0] == 0


def test_download_waits_for_a_slow_server_and_not_for_a_silent_one(
    part: download.Archive, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.wait_s = 0.4
    monkeypatch.setattr(download, "_TIMEOUT_S", 0.1)
    with pytest.raises(AccessError, match=r"said nothing for 0\.1 s"):
        download.download(part, tmp_path)

    monkeypatch.setattr(download, "_TIMEOUT_S", 5)
    told: list[tuple[int, int]] = []
    download.download(part, tmp_path, on_progress=lambda *reached: told.append(reached))

    assert told[-1] == (len(WHOLE), len(WHOLE))
    assert told == sorted(told)


def test_download_without_a_network_exits_with_5_and_names_the_way_around(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("SPEECHEMO_TEST_DOWNLOAD_URL", f"http://127.0.0.1:{free.getsockname()[1]}")

        code, _, err = run("ravdess")

    assert code == 5
    assert "no connection" in err
    assert "with a browser from zenodo.org/records/1188976 and give it with --archive" in err


def test_download_takes_the_checksum_of_other_archives_from_the_record(server: Server) -> None:
    server.content = WHOLE[:-9] + b"otherwise"

    with pytest.raises(AccessError, match="another checksum"):
        download.download(download.SPEECH._replace(md5=""), Path())
    with pytest.raises(AccessError, match=r"does not list Song\.zip"):
        download.download(download.Archive("Song.zip", "song", "*", 1), Path())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read my.zip: no such file"),
        (WHOLE[:-9], "my.zip has the MD5"),
    ],
)
def test_download_refuses_another_archive(content: bytes | None, message: str, run: Callable) -> None:
    if content is not None:
        Path("my.zip").write_bytes(content)

    code, _, err = run("ravdess", "--archive", "my.zip")

    assert code == 5
    assert err.splitlines()[-1].startswith(f"error: {message}")
    assert not Path("data/ravdess").exists()


def test_download_leaves_a_folder_with_other_files_as_it_is(part: download.Archive) -> None:
    mine = Path("ravdess/mine.wav")
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    with pytest.raises(ConfigError, match="exists and does not hold the 24 clips"):
        download.download(part, Path())
    assert mine.read_bytes() == b"mine"


OUTSIDE = ("../o.wav", "a/../../o.wav", "/o.wav", "a//o.wav", "C:o.wav", "..\\o.wav")
DAMAGED = WHOLE[:60] + bytes([WHOLE[60] ^ 0xFF]) + WHOLE[61:]  # in the first clip


@pytest.mark.parametrize(
    ("content", "limit", "message"),
    [
        *((zipped({name: b""}), "", "a link or leads out of its folder") for name in OUTSIDE),
        (zipped({"inside.wav": b"../o.wav"}, stat.S_IFLNK), "", "a link or leads out of its folder"),
        (DAMAGED, "", r"my\.zip is no usable zip file"),
        (WHOLE, "_MOST_FILES", r"would unpack to 24 files of [\d,]+ bytes, expected at most 20 of"),
        (WHOLE, "_MOST_BYTES", r"would unpack to 24 files of [\d,]+ bytes, expected at most \d+ of 20$"),
        (zipped({CLIPS[0]: b""}), "", r"my\.zip holds 1 clips called 03-01-\*\.wav, expected 24"),
    ],
)
def test_download_leaves_nothing_of_an_archive_that_is_hostile_damaged_or_not_whole(
    content: bytes, limit: str, message: str, part: download.Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit:
        monkeypatch.setattr(download, limit, 20)
    Path("my.zip").write_bytes(content)
    with pytest.raises(AccessError, match=message):
        download.download(part._replace(md5=""), Path(), archive=Path("my.zip"))
    assert left_in(Path()) == [Path("my.zip")]


def test_download_list_names_every_corpus_with_licence_and_page(run: Callable) -> None:
    code, out, _ = run("--list")

    listed = dict(block.split("\n", 1) for block in out.strip().split("\n\n"))
    assert code == 0
    assert listed.keys() == BY_NAME.keys()
    for name, corpus in BY_NAME.items():
        assert all(text in listed[name] for text in (corpus.licence, corpus.citation, corpus.page))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: no CORPUS was given. speechemo download --list"),
        (["ravdes"], "error: the corpus 'ravdes' is not known. speechemo download --list"),
        (["tess"], "error: tess is not fetched from here. Get it from https://doi.org/10.5683/SP2/E8H2MF"),
    ],
)
def test_download_says_why_it_fetches_nothing(arguments: list[str], message: str, run: Callable) -> None:
    code, out, err = run(*arguments)

    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(message)
