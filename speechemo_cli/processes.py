"""Processes that a clip may crash, and that end with their parent; workers; libraries that are kept quiet."""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from speechemo_cli.errors import AccessError, AudioError, SpeechemoError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

# What is said of a clip that a process died of.
CRASHED = "crashed the decoder, or ran out of memory"

# Holds the samples of most clips, so that the other side need not be waited for.
_PIPE_BYTES = 2**20
# Keras takes its time, and so does a machine that is busy.
_START_S = 120.0
# With the parent's search path: no module of the working folder is taken for one of ours.
_START = (
    "import json, sys; parent, path, *load = json.loads(sys.argv[1]); sys.path[:] = path;"
    "from speechemo_cli import processes; processes.child_main(parent, *load)"
)

# Chunks handed out for each worker: one in work, the others so that it need not wait for files to
# be hashed.
_AHEAD = 4
# Only a cluster takes so long that has lost its scheduler or all its workers.
_SILENCE_S = 600.0
# A process that has nothing to do ends after so long.
_IDLE_S = 20
# Read when a worker process starts.
_ENVIRONMENT = {
    # By glibc: keep the memory of freed arrays for the next clip. By default it goes back to the system
    # each time, to be mapped anew page by page.
    **dict.fromkeys(["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"], str(2**26)),
    # By loky: no stack traces on stderr from a worker that dies, no count of what a killed run left.
    "PYTHONFAULTHANDLER": "",
    "PYTHONWARNINGS": "ignore::UserWarning:joblib.externals.loky.backend.resource_tracker",
    # By Python, which else begins with what lies in the working folder: somebody else's recordings.
    "PYTHONSAFEPATH": "1",
}

_STDERR = 2
_quieting = threading.Lock()
_n_quiet = 0
_kept: int | None = None


def end_with(parent: int) -> None:
    """Let this process end when its parent, of that process id, does, however that ends."""

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


class Child:
    """A process that answers one request after the other, and may die of one.

    `load`, as "module:function", is called there with `settings` and returns a function of a request and its
    content, which returns an answer and arrays. Requests, answers and settings are plain JSON, content and
    arrays bytes as they are. No pickle: whoever takes over a decoder shall not get any further.
    """

    def __init__(self, load: str, *settings: Any) -> None:
        if not sys.executable or getattr(sys, "frozen", False):
            raise OSError("no Python to start")
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-c", _START, json.dumps([os.getpid(), sys.path, load, settings])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pipesize=_PIPE_BYTES,
            process_group=0,  # Ctrl-C in a terminal is for the parent, which decides
        )
        self._is_ready = False

    @property
    def ended(self) -> bool:
        """Whether there is nobody to ask any more."""
        return self._process.poll() is not None

    def ask(self, request: dict[str, Any], content: bytes = b"", *, timeout_s: float) -> tuple[Any, bytes]:
        """Return the answer and the bytes of its arrays.

        Raises TimeoutError or EOFError where it took too long or died, and OSError where it never was ready;
        it then is not there any more. AudioError where it refused; RuntimeError with its traceback for a
        mistake of ours.
        """
        if not self._is_ready:
            try:
                with self._within(_START_S):
                    self._receive()
            except Exception as error:
                self.close()
                raise OSError(f"a worker process did not start: {error}") from error
            self._is_ready = True
        assert self._process.stdin is not None
        with self._within(timeout_s):
            self._process.stdin.write(json.dumps([request, len(content)]).encode() + b"\n")
            self._process.stdin.write(content)
            self._process.stdin.flush()
            return self._receive()

    def _receive(self) -> tuple[Any, bytes]:
        stdout = self._process.stdout
        assert stdout is not None
        line = stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        kind, answer, n_bytes = json.loads(line)
        arrays = stdout.read(n_bytes)
        if len(arrays) < n_bytes:
            raise EOFError
        if kind == "refused":
            raise AudioError(answer)
        if kind == "broken":
            raise RuntimeError(answer)
        return answer, arrays

    @contextmanager
    def _within(self, timeout_s: float) -> Iterator[None]:
        timer = threading.Timer(timeout_s, self._process.kill)
        timer.daemon = True
        timer.start()
        began = time.monotonic()
        try:
            yield
        except (OSError, EOFError):
            self.close()
            raise (TimeoutError if time.monotonic() - began >= timeout_s else EOFError) from None
        finally:
            timer.cancel()

    def close(self) -> None:
        """End it; it has nothing to lose."""
        self._process.kill()
        self._process.communicate()


class Pool:
    """Processes `Child(*load)`: as many as threads ask at a time.

    Where `n` are asked for, they start now, and one that dies is replaced at once: loading takes long.
    """

    def __init__(self, *load: Any, n: int = 0) -> None:
        self._load = load
        self._replaces = n > 0
        self._all: list[Child] = []
        self._idle = deque(self._start() for _ in range(n))

    def _start(self) -> Child:
        child = Child(*self._load)
        self._all.append(child)
        return child

    def ask(self, request: dict[str, Any], content: bytes = b"", *, timeout_s: float) -> tuple[Any, bytes]:
        """Do what `Child.ask` does, by one that is free; an OSError too where none can be started."""
        try:
            child = self._idle.popleft()
        except IndexError:
            child = self._start()
        try:
            return child.ask(request, content, timeout_s=timeout_s)
        finally:
            if not child.ended:
                self._idle.append(child)
            elif child in self._all:  # nobody closed it
                self._all.remove(child)
                if self._replaces:
                    self._idle.append(self._start())

    def close(self) -> None:
        """End the processes, which have nothing to lose; what is asked next starts others."""
        ended, self._all = self._all, []
        self._idle.clear()
        for child in ended:
            child.close()


def child_main(parent: int, load: str, settings: Sequence[Any]) -> None:
    """Answer the requests on stdin until there are no more. What a library prints is no answer."""
    end_with(parent)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(_STDERR, 1)

    def tell(kind: str, answer: Any, arrays: Sequence[Any] = ()) -> None:
        n_bytes = sum(array.nbytes for array in arrays)
        answers.write(json.dumps([kind, answer, n_bytes]).encode() + b"\n")
        for array in arrays:
            answers.write(array.data)
        answers.flush()

    @contextmanager
    def telling() -> Iterator[None]:
        try:
            yield
        except SpeechemoError as error:
            tell("refused", str(error))
        except BrokenPipeError:
            raise
        except Exception:
            tell("broken", traceback.format_exc())

    answer = None
    with suppress(BrokenPipeError):  # nobody reads them any more
        with telling():
            module, _, name = load.partition(":")
            answer = getattr(importlib.import_module(module), name)(*settings)
            tell("ok", None)
        for line in requests if answer else ():
            request, n_bytes = json.loads(line)
            content = requests.read(n_bytes)
            with telling():
                tell("ok", *answer(request, content))


@contextmanager
def undisturbed() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach, and get it oneself when they are started.

    A terminal sends it to all of them, and the parent decides. One that came while the parent hands a
    process its first message would have that complain of half of it.
    """
    from multiprocessing import resource_tracker

    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    received: list[int] = []
    ours: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # the only one that handlers run in
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            ours[number] = signal.signal(number, lambda number, _: received.append(number))
    resource_tracker.ensure_running()  # where it has to start its process, it unblocks what is blocked
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for replaced, handler in ours.items():
            signal.signal(replaced, handler)
    for pressed in received:
        # Raised again, it would be a second one to who counts what is written to the wakeup fd.
        if callable(ours[pressed]):
            ours[pressed](pressed, None)
        else:
            signal.raise_signal(pressed)


# --- chunks of work on the workers of joblib's backend: processes here, or a cluster's


def given_workers() -> int:
    """Return how many workers an active `joblib.parallel_config` gives; 0 where there is none."""
    from joblib import effective_n_jobs

    n = int(effective_n_jobs(None))
    return n if n > 1 else 0


def run_chunks(chunks: Iterable[Any], compute: Callable[..., Any], n: int, *arguments: Any) -> Iterator[Any]:
    """Call `compute(chunk, *arguments)` for each chunk, on the workers of joblib's backend, in any order.

    Chunks are taken a few at a time, by other threads; `n` worker processes compute them, where no
    `joblib.parallel_config` says otherwise. It yields each chunk and its result, and raises what a worker
    raised, or an AccessError where none has finished anything for ten minutes.

    When a worker process dies (the system ran out of memory and chose it), what was under way is computed
    again alone; a cluster does so by itself. A clip that kills its worker once more is given up: None.
    """
    from concurrent.futures.process import BrokenProcessPool

    from joblib import delayed

    waiting = iter(chunks)
    under_way: dict[int, Any] = {}

    def handed_out() -> Iterator[Any]:
        for i, chunk in enumerate(waiting):
            under_way[i] = chunk
            yield delayed(_numbered)(i, compute, chunk, *arguments)

    while True:
        try:
            with closing(_parallel(handed_out(), n)) as results:
                for i, result in results:
                    yield under_way.pop(i), result
            return
        except BrokenProcessPool:
            lost = list(under_way.values())
            under_way.clear()
        # Each with nothing beside it, and clip by clip where a worker dies of it.
        while lost:
            chunk = lost.pop()
            try:
                yield chunk, *_parallel([delayed(compute)(chunk, *arguments)], n)
            except BrokenProcessPool:
                if len(chunk) > 1:
                    lost += [[one] for one in chunk]
                else:
                    yield chunk, None


def _numbered(i: int, compute: Callable[..., Any], *arguments: Any) -> tuple[int, Any]:
    return i, compute(*arguments)


def _parallel(tasks: Iterable[Any], n: int) -> Generator[Any, None, None]:
    from joblib import Parallel

    parallel = Parallel(
        # Of one, joblib makes this process.
        n_jobs=None if given_workers() else max(2, n),
        return_as="generator_unordered",
        batch_size=1,
        pre_dispatch=f"{_AHEAD}*n_jobs",
        timeout=_SILENCE_S,
        initializer=_begin,
        initargs=(os.getpid(),),
        idle_worker_timeout=_IDLE_S,
    )
    with _environment(), warnings.catch_warnings(), ExitStack() as stack:
        # It counts what was under way when it is broken off, or says that a worker was idle and ended.
        warnings.filterwarnings("ignore", category=UserWarning, module="joblib")
        with undisturbed():
            results = stack.enter_context(closing(parallel(tasks)))
        try:
            yield from results
        except TimeoutError:
            raise AccessError(
                f"no worker has finished anything for {_SILENCE_S / 60:.0f} minutes",
                "What is finished is kept: see to the cluster, and run it again",
            ) from None


@contextmanager
def _environment() -> Iterator[None]:
    ours = {name: value for name, value in _ENVIRONMENT.items() if not os.environ.get(name)}
    hook = threading.excepthook

    def without_loky(args: Any) -> None:
        # Where its processes are killed, loky's thread stumbles over the work that is taken back.
        if not (args.exc_type is KeyError and args.thread and args.thread.name == "ExecutorManagerThread"):
            hook(args)

    os.environ.update(ours)
    threading.excepthook = without_loky
    try:
        yield
    finally:
        threading.excepthook = hook
        for name in ours:
            os.environ.pop(name, None)


def _begin(parent: int) -> None:
    # A worker whose parent was killed would wait for more, and keep the parent's pipes open.
    end_with(parent)
    # What it wrote is closed: unloading its libraries at the end would only keep the parent waiting.
    atexit.register(os._exit, 0)


def has_workers() -> bool:
    """Whether joblib can start any: some sandboxes lack the semaphores that processes share."""
    from joblib import effective_n_jobs

    return bool(effective_n_jobs(2) > 1)


# --- libraries that are kept quiet


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop whatever is written to stderr in the block; blocks of several threads may overlap.

    TensorFlow's C++ code writes there before any log level is read ("oneDNN custom operations are
    on", "Could not find cuda drivers"), so neither a logger nor `sys.stderr` can stop it.
    """
    global _n_quiet, _kept
    with _quieting:
        if not _n_quiet and sys.stderr is not None:
            sys.stderr.flush()
            try:
                _kept = os.dup(_STDERR)
            except OSError:
                pass  # it is closed
            else:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, _STDERR)
                os.close(nowhere)
        _n_quiet += 1
    try:
        yield
    finally:
        with _quieting:
            _n_quiet -= 1
            if not _n_quiet and _kept is not None:
                sys.stderr.flush()
                restore_stderr()
                os.close(_kept)
                _kept = None


def restore_stderr() -> None:
    """Write to stderr again, where a block that drops it is not going to be ended."""
    if _kept is not None:
        os.dup2(_kept, _STDERR)
