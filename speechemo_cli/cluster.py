"""A dask cluster as joblib's backend."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from speechemo_cli.errors import AccessError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONNECT_S = 5
_WORKERS_S = 30


@contextmanager
def connected(scheduler: str) -> Iterator[None]:
    """Let the workers of a scheduler compute what is handed out inside the block.

    Parameters
    ----------
    scheduler : str
        Its address, as `tcp://host:8786`.

    Raises
    ------
    AccessError
        No scheduler answers there, or it has no worker.
    ConfigError
        No address; or a worker has another version of this package.
    """
    import joblib
    from distributed import Client

    # It tells of every connection that is cut, at length, also of those that are cut on purpose.
    for name in ("distributed", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = Client(scheduler, timeout=_CONNECT_S, set_as_default=False)
    except ValueError as error:
        raise ConfigError(
            f"--scheduler is {scheduler!r}, expected an address", f"dask says: {error}"
        ) from error
    except OSError as error:
        raise AccessError(f"no scheduler answers at {scheduler}", "Start one with: dask scheduler") from error
    try:
        _require_workers(client, scheduler)
        with joblib.parallel_config("dask", client=client):
            yield
    finally:
        client.close(timeout=1)


def _require_workers(client: Any, scheduler: str) -> None:
    try:
        client.wait_for_workers(1, timeout=_WORKERS_S)
    except TimeoutError as error:
        start = f"Start some with: dask worker {scheduler}"
        raise AccessError(f"the scheduler at {scheduler} has no worker", start) from error

    # Nested, so that it goes out as it is: a worker may lack whatever it would look up by a name.
    def version() -> str:
        import speechemo_cli
        from speechemo_cli.features import FEATURE_SETS

        sets = (f"{kind.name} {kind.version}" for kind in FEATURE_SETS.values())
        return f"speechemo {speechemo_cli.__version__} ({', '.join(sets)})"

    ours = version()
    for worker, theirs in client.run(version, on_error="return").items():
        if theirs != ours:
            raise ConfigError(
                f"the worker {worker} has {_said(theirs)}, expected {ours}", "Install the same on all of them"
            )


def _said(theirs: Any) -> str:
    return theirs if isinstance(theirs, str) else f"none that works ({theirs})"
