"""The process that touches the device: reads requests, one JSON object a line, and answers in the same way.

It is a process of its own because a kernel that faults leaves its process without a device, and one that hangs cannot
be stopped from within: the program that asks starts another and goes on.

    python -m fusemodel.validate.measure.worker REPLIES DEVICE     (a file descriptor; 'cuda', or 'cpu' for tests)
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import gc
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from fusemodel.validate.measure.case import Case
from fusemodel.validate.measure.kernels import TOLERANCE, Unsupported, build, missing
from fusemodel.validate.measure.timing import HostTimer, Timer, graph_timer, load, sample

Reply = dict[str, Any]


class CheckFailed(RuntimeError):
    """A kernel whose output is not what float64 says."""


def facts(device: str) -> Reply:
    """What runs here: versions and the device; or, under ``no_device``, why nothing can."""
    try:
        import torch
    except ImportError:
        return {"no_device": "PyTorch is not installed"}
    found: Reply = {"torch": torch.__version__, "python": platform.python_version(), "triton": _triton_version()}
    found["missing"] = missing()
    if device == "cpu":
        return {**found, "device": "host", "sms": 4, "memory_bytes": 10**9, "l2_bytes": 0, "uuid": ""}
    if not torch.cuda.is_available():
        return {"no_device": f"PyTorch {torch.__version__} finds no GPU it can use"}
    properties = torch.cuda.get_device_properties(0)
    return {
        **found,
        "device": properties.name,
        "sms": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": getattr(properties, "L2_cache_size", 0),
        "uuid": str(getattr(properties, "uuid", "")),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _triton_version() -> str:
    try:
        import triton
    except ImportError:
        return ""
    return triton.__version__


def answer(request: dict[str, Any], device: str, timer: Timer) -> Iterator[Reply]:
    """Set a case up, check it, time it as asked; one reply for each state of the cache, or one that says what failed
    and at which stage."""
    stage = "setup"
    try:
        case = Case.from_dict(request["case"])
        if case.op == "idle":
            yield _rest(request["rest_s"])
            return
        kernel = build(case, device)
        stage = "check"
        error = kernel.error(kernel.run())
        if not error <= TOLERANCE[case.dtype]:
            raise CheckFailed(f"relative error {error:.3g} against float64, above {TOLERANCE[case.dtype]:g}")
        stage = "timing"
        about = {"config": kernel.config, "rel_error": error}
        for mode in request["modes"]:
            if case.group == "energy":
                done = load(kernel.run, timer, settle_s=request["settle_s"], seconds=request["load_s"])
                yield {"l2": mode, "calls": done.calls, "begin_s": done.begin_s, "end_s": done.end_s, **about}
            else:
                found = sample(kernel.run, timer, cold=mode == "cold", timed_ms=request["timed_ms"],
                               brief=request.get("brief", False))  # fmt: skip
                yield {"l2": mode, "us": found.us, "launches": found.launches, "how": found.how,
                       "begin_s": found.begin_s, "end_s": found.end_s, **about}  # fmt: skip
    except Exception as error:  # whatever a library raises: it is recorded, and the run goes on
        name, message = type(error).__name__, str(error)[:500]
        if isinstance(error, Unsupported):
            name = "unsupported"
        elif isinstance(error, CheckFailed):
            name = "wrong"
        elif "out of memory" in message.lower():
            name = "out of memory"
        yield {"failed": stage, "error": name, "message": message}


def _rest(seconds: float) -> Reply:
    """Leave the device alone; the first half lets it cool and clock down."""
    time.sleep(seconds / 2)
    begin = time.monotonic()
    time.sleep(seconds / 2)
    return {"l2": "warm", "calls": 1, "begin_s": begin, "end_s": time.monotonic(), "config": "", "rel_error": 0.0}


def serve(requests: Iterator[str], send: Callable[[Reply], None], device: str) -> int:
    """Answer requests until there are no more. 1 where the device is lost, after saying so."""
    about = facts(device)
    send(about)
    if "no_device" in about:
        return 0
    timer: Timer = HostTimer() if device == "cpu" else graph_timer(about["l2_bytes"])
    gc.freeze()  # the libraries' objects: going over them at each capture would take longer than the timing
    for line in requests:
        for reply in answer(json.loads(line), device, timer):
            send(reply)
        lost = "" if device == "cpu" else _release()
        send({"done": True, "lost": lost})
        if lost:
            return 1
    return 0


def _release() -> str:
    """Give back the memory of the last case; why the device is lost, if it is."""
    import torch

    try:
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError as error:
        return str(error)[:300] or "the device is lost"
    return ""


def main() -> int:
    """Serve the requests on standard input."""
    os.set_inheritable(int(sys.argv[1]), False)
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # nothing else runs while kernels are timed
    replies = os.fdopen(int(sys.argv[1]), "w", buffering=1, encoding="utf-8")

    def send(reply: Reply) -> None:
        replies.write(json.dumps(reply) + "\n")

    return serve(iter(sys.stdin.readline, ""), send, sys.argv[2])


if __name__ == "__main__":
    sys.exit(main())
