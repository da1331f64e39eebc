"""Who does the work: this process, local processes, or the workers of a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from fusemodel.errors import InputError

ATTEMPTS = 3  # at a task whose worker dies
_CONNECT_S = 10


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@dataclass(frozen=True)
class Workers:
    """An executor, and how many tasks it should have at a time."""

    executor: Executor
    wanted: int


class _Here(Executor):
    """Runs a task where it is submitted. A task may end early at an interruption; then there are no more."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with _interruptions() as seen:
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)
        if seen:
            raise KeyboardInterrupt
        return future


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """The interruptions while this is open, also those that someone else took."""
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return

    def interrupt(number: int, _frame: Any) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def workers(jobs: int, scheduler: str | None) -> Iterator[Workers]:
    """``jobs`` local processes (1: this one), or those of a Dask scheduler. Ended at once when left by an exception."""
    if scheduler is not None:
        with _cluster(scheduler) as found:
            yield found
        return
    if jobs == 1:
        yield Workers(_Here(), 1)
        return
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)
    before = set(multiprocessing.active_children())
    try:
        yield Workers(pool, 2 * jobs)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """A worker leaves interruptions to its parent, and goes when its parent has gone, however that ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


@contextmanager
def _cluster(address: str) -> Iterator[Workers]:
    try:
        from distributed import Client
    except ImportError:
        raise InputError("distributed is not installed", expected="`pip install 'fusemodel[dask]'`") from None
    try:
        client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"no Dask scheduler answers at {address!r}: {str(error).splitlines()[0]}",
                         expected="an address such as `tcp://host:8786`") from None  # fmt: skip
    try:
        threads: Any = client.nthreads()
        cores = sum(threads.values())
        # a worker that dies is replaced by another; distributed itself tries a task again on those left
        yield Workers(client.get_executor(pure=False, retries=ATTEMPTS), max(8, 2 * cores))
    finally:
        client.close(timeout=_CONNECT_S)


__all__ = ["ATTEMPTS", "Workers", "processors", "workers"]
