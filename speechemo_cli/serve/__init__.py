"""The local page and its HTTP interface: which requests are accepted, and the processes that answer them.

A file that crashes or stalls one of these costs its own request alone.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ipaddress
import re
import uuid
from contextlib import contextmanager, suppress
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from speechemo_cli.errors import SCHEMA, AudioError
from speechemo_cli.files import display_name, scratch_folder
from speechemo_cli.processes import CRASHED, Pool

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# 25 minutes of CD sound, or nine hours of MP3 at 64 kbit/s.
LARGEST_BYTES = 2**28
# How long a body may take to arrive, and how long one that is not wanted is read on: who closes before
# the other side has said all takes the answer from it too.
_ARRIVAL_S, _DRAIN_S = 120.0, 5.0
# Requests that are read, wait or are answered at a time. Each holds up to LARGEST_BYTES on disk.
_MOST_REQUESTS = 16
_LONGEST_NAME = 255
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cache-Control": "no-store",
}


def create_app(
    pool: WorkerPool, facts: dict[str, Any], host: str, on_error: Callable[[Exception], None]
) -> ASGIApp:
    """Put the server together.

    `facts` are what `GET /health` tells beside the status; `host` is the name that the server was given,
    which requests may call it by. `on_error` gets mistakes of ours; the request gets status 500.
    """
    page = resources.files(__package__).joinpath("page.html").read_text("utf-8")
    recorder = resources.files(__package__).joinpath("recorder.js").read_text("utf-8")
    health = {"schema": SCHEMA, "status": "ok", **facts, "largest_bytes": LARGEST_BYTES}
    asked = _Asked(pool)

    def broken(_: Request, error: Exception) -> Response:
        on_error(error)
        return _error(500, "internal error; the terminal of the server tells more")

    def gone(*_: Any) -> Response:
        return _error(400, "the body ended early")  # which nobody reads

    app = Starlette(
        routes=[
            Route("/", Response(page, media_type="text/html"), methods=["GET"]),
            # An AudioWorklet takes its code from an address alone.
            Route("/recorder.js", Response(recorder, media_type="text/javascript"), methods=["GET"]),
            Route("/health", JSONResponse(health), methods=["GET"]),
            Route("/predict", partial(asked.answer, timeline=False), methods=["POST"]),
            Route("/timeline", partial(asked.answer, timeline=True), methods=["POST"]),
        ],
        exception_handlers={HTTPException: _refuse, ClientDisconnect: gone, Exception: broken},
    )
    return _guarded(app, host, _policy(page))


class _Asked:
    """Answers for the file that is the body of a request."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._n = 0

    async def answer(self, request: Request, *, timeline: bool) -> Response:
        refused = self._refusal(request)
        if refused:
            with suppress(TimeoutError):
                await _receive(request, None, _DRAIN_S)
            raise refused
        self._n += 1
        # In memory 16 of them would be gigabytes.
        path = scratch_folder() / uuid.uuid4().hex
        try:
            with path.open("xb") as file:
                size = await _receive(request, file, _ARRIVAL_S)
            if size > LARGEST_BYTES:
                raise _too_large()
            if not size:
                raise HTTPException(400, "the body is empty, expected the bytes of an audio file")
            query = request.query_params
            name = display_name(query.get("name", "-")[:_LONGEST_NAME])
            asked = {"path": str(path), "name": name, "timeline": timeline, "waveform": "waveform" in query}
            return JSONResponse(await self._pool.ask(asked))
        except AudioError as error:
            raise HTTPException(422, str(error)) from error
        except TimeoutError:
            raise HTTPException(408, f"the body took longer than {_ARRIVAL_S:g} s") from None
        except OSError as error:
            raise HTTPException(503, f"cannot hold the recording ({error.strerror or error})") from error
        finally:
            path.unlink(missing_ok=True)
            self._n -= 1

    def _refusal(self, request: Request) -> HTTPException | None:
        """Tell what is wrong with a request before its body is read."""
        if request.headers.get("content-type", "").startswith("multipart/"):
            return HTTPException(
                415, "the body is a form, expected the bytes of an audio file. Try: curl --data-binary @FILE"
            )
        if self._n >= _MOST_REQUESTS:
            return HTTPException(503, f"busy with {self._n} requests, try again", {"Retry-After": "1"})
        if int(request.headers.get("content-length", 0)) > LARGEST_BYTES:
            return _too_large()
        return None


def _too_large() -> HTTPException:
    return HTTPException(413, f"more than {LARGEST_BYTES} bytes. Cut it, or use speechemo predict")


async def _receive(request: Request, file: BinaryIO | None, limit_s: float) -> int:
    """Write the body into a file as it comes, and return its size, or one that is too large.

    Raises TimeoutError if it is not there within so many seconds.
    """
    size = 0
    async with asyncio.timeout(limit_s):
        async for chunk in request.stream():
            size += len(chunk)
            if size > LARGEST_BYTES:
                break
            if file:
                file.write(chunk)
    return size


def _error(status: int, error: str, headers: Any = None) -> Response:
    return JSONResponse({"schema": SCHEMA, "status": "error", "error": error}, status, headers)


def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail, error.headers)


def _policy(page: str) -> str:
    """Return a Content-Security-Policy that runs the page's own script and style, and no others."""

    def hashes(tag: str) -> str:
        found = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found]
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; script-src 'self' {hashes('script')}; style-src {hashes('style')}; "
        "connect-src 'self'; media-src blob:; img-src 'self' data:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


def _guarded(app: ASGIApp, host: str, policy: str) -> ASGIApp:
    """Accept only requests meant for this server, and send the headers that protect its page.

    A page of somebody else can point its own name at this address; the browser then takes us for it, but
    sends that name as Host. What another page sends here has that page's Origin.
    """
    names, own_headers = {"localhost", host.lower()}, {**_HEADERS, "Content-Security-Policy": policy}

    def is_ours(host: str) -> bool:
        """Whether a Host is a name of ours or an address, which no other page can claim."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in names or bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(own_headers)
            await send(message)

        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        chosen: ASGIApp = app
        if not is_ours(host):
            chosen = _error(
                421, f"the host is {host[:100]!r}, expected the address that speechemo serve names"
            )
        elif origin is not None and urlsplit(origin).netloc != host:
            chosen = _error(403, f"a page of {origin[:100]!r} asked, expected this server's own")
        await chosen(scope, receive, send_with_headers)

    return guarded


async def serve(
    app: ASGIApp, pool: WorkerPool, listening: socket.socket, stopped: Callable[[], bool]
) -> None:
    """Answer until `stopped()`; requests that run then have a second to end. Closes the pool."""

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # they are left to the command

        async def on_tick(self, counter: int) -> bool:  # ten times a second
            return await super().on_tick(counter) or stopped()

    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    try:
        await Server(config).serve(sockets=[listening])
    finally:
        pool.close()


# --- the processes that answer


class WorkerPool:
    """A few processes, each a `Child(*load)`, which are replaced when an answer takes `timeout_s`."""

    def __init__(self, *load: Any, workers: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._free = asyncio.Semaphore(workers)
        self._pool = Pool(*load, n=workers)
        self.close = self._pool.close

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer of the next process that is free.

        Raises AudioError if the clip was refused, took too long, or the process died of it, and RuntimeError
        with the traceback of the process for a mistake of ours.
        """
        async with self._free:
            return await asyncio.to_thread(self._ask, request)

    def _ask(self, request: dict[str, Any]) -> Any:
        try:
            return self._pool.ask(request, timeout_s=self._timeout_s)[0]
        except TimeoutError:
            raise AudioError(f"took longer than {self._timeout_s:g} s", "Cut it") from None
        except EOFError:
            raise AudioError(CRASHED) from None
        except OSError as error:
            raise RuntimeError(str(error)) from error
