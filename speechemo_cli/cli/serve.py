"""`speechemo serve`."""

from __future__ import annotations

import ipaddress
import socket
from typing import Annotated

import typer

from speechemo_cli import __version__
from speechemo_cli.cli import options, terminal
from speechemo_cli.cli.predict import worth
from speechemo_cli.errors import AccessError

# More would not answer sooner: each uses what cores there are.
_MOST_WORKERS = 2
# Of one request. Three hours of speech take half a minute.
_TIMEOUT_S = 120.0
_LOAD = "speechemo_cli.inference:load_model"


def run(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; the default is this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port to listen on; 0 for any free one.")
    ] = 8000,
    model: options.Model = None,
    *,
    settings: options.Settings,
) -> None:
    """Open a page on this machine to drop a file on, or to record with the microphone, until Ctrl-C.

    POST /predict and POST /timeline take the bytes of an audio file and return the JSON of predict.
    Nothing is stored. Needs: pip install 'speechemo[serve]'.
    """
    import asyncio

    from speechemo_cli import serve
    from speechemo_cli.evaluation.report import licences
    from speechemo_cli.inference.predictor import Predictor
    from speechemo_cli.models import model_file

    config = settings.config()
    path = model_file.find(model, config.models)
    metadata = Predictor.open(path, config).metadata  # refused now, not at the first request
    facts = {
        "version": __version__,
        "model": model_file.shown(path),
        "labels": list(metadata.labels),
        "worth": worth(metadata),
        "licences": licences(metadata.data.get("corpora", ())),
    }
    terminal.note(f"model: {facts['model']} ({facts['worth']})")

    async def answer() -> None:
        with _listen(host, port) as listening:
            n = min(_MOST_WORKERS, config.workers)
            pool = serve.WorkerPool(_LOAD, str(path), config.to_dict(), workers=n, timeout_s=_TIMEOUT_S)
            terminal.note(f"serving on {_address(listening)} until Ctrl-C")
            if not ipaddress.ip_address(listening.getsockname()[0]).is_loopback:
                terminal.warn("everybody who reaches this address may use it: there is no password")
            served = serve.create_app(pool, facts, host, _tell)
            await serve.serve(served, pool, listening, lambda: terminal.signal_received() > 0)

    with terminal.raising(wanted=False):
        asyncio.run(answer())


def _tell(error: Exception) -> None:
    lines = str(error).strip().splitlines()  # of a worker, whose traceback ends with what happened
    terminal.warn(f"internal error: {lines[-1] if lines else type(error).__name__}")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (")[0].lower()
        raise AccessError(f"cannot listen on {host}, port {port}: {reason}", "Give another --port") from None


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
