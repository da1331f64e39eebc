"""A worker process as seen from the program that asks: requests out, replies in, and an end if it hangs or dies."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

WORKER = (sys.executable, "-m", "fusemodel.validate.measure.worker", "{replies}", "cuda")
#: Seconds a worker may take to import its libraries and find the device.
HELLO_S = 120.0
ROOT = Path(__file__).resolve().parents[3]


class Lost(RuntimeError):
    """The worker is gone, or is taken to hang; ``kind`` is 'crashed' or 'timeout'."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class Link:
    """Starts ``command``, in which ``{replies}`` stands for the file descriptor to answer on. What the worker prints
    goes to the end of ``log``. It leads a session of its own, so that Ctrl-C reaches only this program."""

    def __init__(self, command: Sequence[str], log: Path | None) -> None:
        reading, writing = os.pipe()
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        output = subprocess.DEVNULL if log is None else log.open("ab")
        try:
            self._process = subprocess.Popen(
                [part.format(replies=writing) for part in command], stdin=subprocess.PIPE, stdout=output,
                stderr=subprocess.STDOUT, pass_fds=[writing], start_new_session=True, text=True,
                env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
            if not isinstance(output, int):
                output.close()
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(reading,), name="replies", daemon=True)
        self._reader.start()

    def _read(self, reading: int) -> None:
        with os.fdopen(reading, encoding="utf-8") as file:
            for line in file:
                self._lines.put(line)
        self._lines.put(None)

    def hello(self, timeout_s: float = HELLO_S) -> dict[str, Any]:
        """The worker's first words: the device and the versions."""
        return self._next(time.monotonic() + timeout_s)

    def ask(self, request: dict[str, Any], timeout_s: float) -> Iterator[dict[str, Any]]:
        """The replies to a request, as they come. Lost where the worker dies, says that its device is gone, or has not
        finished after ``timeout_s``."""
        stdin = self._process.stdin
        try:
            if stdin is not None:
                stdin.write(json.dumps(request) + "\n")
                stdin.flush()
        except OSError as error:
            raise Lost("crashed", f"the worker ended: {self._ending()}") from error
        end = time.monotonic() + timeout_s
        while not (reply := self._next(end)).get("done"):
            yield reply
        if reply["lost"]:
            raise Lost("crashed", reply["lost"])

    def _next(self, end_s: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=max(0.0, end_s - time.monotonic()))
        except queue.Empty:
            raise Lost("timeout", "no answer in time") from None
        if line is None:
            raise Lost("crashed", f"the worker ended: {self._ending()}")
        try:
            return json.loads(line)
        except json.JSONDecodeError:
            raise Lost("crashed", f"the worker ended in the middle of a reply: {self._ending()}") from None

    def _ending(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed its replies"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def close(self) -> None:
        """End the worker, at once if it does not end by itself, and what a compiler may have started in its session."""
        if self._process.stdin is not None:
            with suppress(OSError):  # it is gone already
                self._process.stdin.close()
        self._reader.join(timeout=1)
        if self._process.returncode is None:  # not waited for: the number is still its own
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
