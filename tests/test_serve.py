"""The server as programs see it, and as pages of others do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import noisy, running_server, until

import speechemo_cli
from speechemo_cli import serve
from speechemo_cli.cli import app as cli
from speechemo_cli.errors import AudioError
from speechemo_cli.files import scratch_folder
from speechemo_cli.serve import WorkerPool

HALF = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf"
Answer = tuple[int, dict[str, str], Any]


class Echo:
    """In place of the worker processes: tells what it was asked, once it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.may.set()
        self.errors: list[Exception] = []

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        content = Path(request["path"]).read_bytes()
        await asyncio.to_thread(self.may.wait, 30)
        if content == b"refuse":
            raise AudioError("not audio")
        if content == b"break":
            raise RuntimeError("a mistake")
        return {**request, "bytes": len(content)}

    def close(self) -> None:
        self.may.set()


@pytest.fixture(scope="module")
def pool() -> Echo:
    return Echo()


@pytest.fixture(scope="module")
def port(pool: Echo) -> Iterator[int]:
    """Serve in a thread."""
    listening, stopped = socket.create_server(("127.0.0.1", 0)), threading.Event()
    made = serve.create_app(pool, {"model": "m"}, "127.0.0.1", pool.errors.append)
    served = serve.serve(made, pool, listening, stopped.is_set)
    thread = threading.Thread(target=asyncio.run, args=[served])
    thread.start()
    yield listening.getsockname()[1]
    stopped.set()
    thread.join(10)


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    is_json = response.headers["content-type"] == "application/json"
    return response.status, dict(response.headers), json.loads(content) if is_json else content


def recordings_left() -> list[str]:
    """Return the recordings that lie in the scratch folder; their names have 32 digits."""
    return [path.name for path in scratch_folder().iterdir() if len(path.name) == 32]


def test_predict_and_timeline_hand_the_body_over_and_keep_nothing(port: int) -> None:
    before = recordings_left()

    _, _, clip = ask(port, "POST", "/predict?name=a%0Ab.wav", b"12345")
    _, _, recording = ask(port, "POST", "/timeline?waveform", iter([b"123", b"456"]))

    assert {**clip, "path": ""} == {
        "path": "", "name": "a\\nb.wav", "timeline": False, "waveform": False, "bytes": 5,
    }  # fmt: skip
    assert recording["name"] == "-"
    assert recording["timeline"] is recording["waveform"] is True
    assert recording["bytes"] == 6
    assert recordings_left() == before


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "error"),
    [
        ("POST", "/predict", b"", {}, 400, "the body is empty"),
        ("POST", "/predict", b"x" * 1001, {}, 413, "more than 1000 bytes"),
        ("POST", "/predict", [b"x" * 600] * 5, {}, 413, "more than 1000 bytes"),
        ("POST", "/predict", b"--x", {"content_type": "multipart/form-data"}, 415, "the body is a form"),
        ("POST", "/timeline", b"refuse", {}, 422, "not audio"),
        ("POST", "/timeline", b"break", {}, 500, "internal error"),
        ("GET", "/predict", None, {}, 405, "Method Not Allowed"),
        ("GET", "/../etc/passwd", None, {}, 404, "Not Found"),
        ("GET", "/", None, {"host": "evil.example:8000"}, 421, "the host is 'evil.example:8000'"),
        ("GET", "/", None, {"host": ""}, 421, "the host is ''"),
        ("POST", "/predict", b"x", {"origin": "http://evil.example"}, 403, "a page of 'http://evil.example'"),
        ("POST", "/predict", b"x", {"origin": "null"}, 403, "a page of 'null'"),
    ],
)
def test_server_refuses_with_a_status_and_one_line(
    method: str,
    path: str,
    body: Any,
    headers: dict[str, str],
    status: int,
    error: str,
    port: int,
    pool: Echo,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve, "LARGEST_BYTES", 1000)
    pool.errors.clear()

    received, _, answer = ask(port, method, path, iter(body) if isinstance(body, list) else body, **headers)

    assert received == status
    assert answer["status"] == "error"
    assert answer["error"].startswith(error)
    assert "\n" not in answer["error"]
    assert [str(error) for error in pool.errors] == ["a mistake"] * (status == 500)
    assert recordings_left() == []


@pytest.mark.parametrize("host", ["localhost:{}", "127.0.0.1:{}", "[::1]:{}", "192.168.0.7:{}"])
def test_server_answers_its_own_page_by_name_and_by_address(host: str, port: int) -> None:
    host = host.format(port)

    status, _, answer = ask(port, "POST", "/predict", b"x", host=host, origin=f"http://{host}")

    assert (status, answer["bytes"]) == (200, 1)


def test_page_comes_with_a_policy_that_lets_nothing_else_in_and_health_tells_the_model(port: int) -> None:
    status, headers, page = ask(port, "GET", "/")
    _, _, health = ask(port, "GET", "/health")

    assert health == {"schema": 1, "status": "ok", "model": "m", "largest_bytes": serve.LARGEST_BYTES}
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert status == 200
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert b"http:" not in page
    assert b"https:" not in page


def test_server_answers_fifty_requests_at_once_or_says_when_to_come_again(port: int, pool: Echo) -> None:
    pool.may.clear()
    refused = 0

    def one(_: int) -> Answer:
        nonlocal refused
        answer = ask(port, "POST", "/predict", b"x" * 100_000)
        refused += answer[0] == 503
        if refused == 50 - 16:
            pool.may.set()
        return answer

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(one, range(50)))

    assert sorted(status for status, _, _ in answers) == [200] * 16 + [503] * 34
    assert all(headers["retry-after"] == "1" for status, headers, _ in answers if status == 503)
    assert recordings_left() == []


def test_server_forgets_a_body_that_ends_early_or_takes_too_long(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(HALF)
    monkeypatch.setattr(serve, "_ARRIVAL_S", 0.1)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(HALF)
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")

    assert ask(port, "POST", "/predict", b"x")[0] == 200
    until(lambda: not recordings_left(), 5)


def test_workers_are_replaced_when_a_request_ends_them() -> None:
    async def talk() -> None:
        with closing(WorkerPool("serve_loads:load", workers=1, timeout_s=1)) as pool:
            first = await pool.ask({"do": "answer"})
            with pytest.raises(AudioError, match=r"^silent\. Say something$"):
                await pool.ask({"do": "refuse"})
            with pytest.raises(RuntimeError, match="OverflowError: of ours"):
                await pool.ask({"do": "break"})
            assert await pool.ask({"do": "answer"}) == first
            with pytest.raises(AudioError, match="crashed the decoder"):
                await pool.ask({"do": "crash"})
            second = await pool.ask({"do": "answer"})
            with pytest.raises(AudioError, match="took longer than 1 s"):
                await pool.ask({"do": "stall"})
            third = await pool.ask({"do": "answer"})
            assert len({first["pid"], second["pid"], third["pid"]}) == 3

    asyncio.run(talk())


def test_workers_say_why_they_cannot_start() -> None:
    async def talk() -> None:
        with closing(WorkerPool("serve_loads:load_nothing", workers=1, timeout_s=2)) as pool:
            for _ in range(2):
                with pytest.raises(RuntimeError, match=r"did not start: (.|\n)*OverflowError: no model"):
                    await pool.ask({})

    asyncio.run(talk())


def test_serve_answers_as_predict_does_and_ends_at_once(
    write_clip: Callable[..., Path], rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_clip("clip.wav", y=noisy(rng, 2.5, 16000))

    def printed(command: str) -> Any:
        assert cli.run([command, "clip.wav", "--format", "json"]) == 0
        return json.loads(capsys.readouterr().out)

    with running_server() as (process, address):
        port = int(address.rstrip("/").rpartition(":")[2])
        content = clip.read_bytes()
        status, _, answer = ask(port, "POST", "/predict?name=clip.wav", content)
        _, _, followed = ask(port, "POST", "/timeline?name=clip.wav", content)
        _, _, drawn = ask(port, "POST", "/timeline?name=clip.wav&waveform", content)
        _, _, health = ask(port, "GET", "/health")
        workers = [
            int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ]
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(HALF)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
            assert time.monotonic() - began < 3
        assert process.stderr is not None
        assert process.stderr.read() == "error: stopped\n"

    assert status == 200
    assert answer == printed("predict")
    assert followed == printed("timeline")
    wave = np.array(drawn["recordings"][0].pop("waveform"))
    assert drawn == followed
    assert wave.shape[1] == 2
    assert 0 < len(wave) <= 500
    assert wave.min() < 0 < wave.max()
    assert health["licences"]["ravdess"] == "CC BY-NC-SA 4.0"
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 4)


def test_serve_ends_quietly_when_ctrl_c_comes_while_its_workers_start() -> None:
    with running_server(start_new_session=True) as (process, _):
        os.killpg(process.pid, signal.SIGINT)

        assert process.wait(10) == 130
        assert process.stderr is not None
        assert process.stderr.read() == "error: stopped\n"


def test_serve_names_the_extra_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "speechemo_cli.serve")
    monkeypatch.delattr(speechemo_cli, "serve")

    assert cli.run(["serve"]) == 2
    expected = (
        "error: the package uvicorn is not installed, which this command needs. Run: pip install "
        "'speechemo[serve]'\n"
    )
    assert capsys.readouterr().err == expected


def test_serve_names_a_port_that_is_taken(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["serve", "--port", str(port), "--quiet"]) == 5
    err = capfd.readouterr().err
    assert err == (
        f"error: cannot listen on 127.0.0.1, port {port}: address already in use. Give another --port\n"
    )
