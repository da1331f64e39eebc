"""A worker without a device, for tests: answers each request with made-up times, or misbehaves at a given kernel.

python fake_worker.py REPLIES [crash:KERNEL | exit:KERNEL | hang:KERNEL | lose:KERNEL | fail:KERNEL | slow:SECONDS]...
"""

from __future__ import annotations

import json
import os
import sys
import time

FACTS = {
    "device": "Imagined 9000", "sms": 100, "memory_bytes": 80 * 10**9, "l2_bytes": 50 * 10**6, "uuid": "",
    "torch": "1.2.3", "triton": "4.5.6", "cuda": "13.0", "cudnn": 91000, "python": "3.11.0",
}  # fmt: skip


def main() -> None:
    replies = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    ways = dict(argument.split(":") for argument in sys.argv[2:])

    def send(reply: dict[str, object]) -> None:
        replies.write(json.dumps(reply) + "\n")

    send({"no_device": ways["without"]} if "without" in ways else FACTS)
    for line in sys.stdin:
        request = json.loads(line)
        case = request["case"]
        kernel = case["kernel"]
        print("working on", kernel, flush=True)  # noqa: T201
        time.sleep(float(ways.get("slow", 0)))
        if kernel == ways.get("crash"):
            os.abort()
        if kernel == ways.get("exit"):
            sys.exit(7)
        if kernel == ways.get("hang"):
            time.sleep(3600)
        if kernel == ways.get("lose"):
            send({"failed": "timing", "error": "RuntimeError", "message": "an illegal memory access\nwas met"})
            send({"done": True, "lost": "the device is lost"})
            sys.exit(1)
        if kernel == ways.get("fail"):
            send({"failed": "setup", "error": "unsupported", "message": "not here, not now"})
            send({"done": True, "lost": ""})
            continue
        begin = time.monotonic()
        for mode in request["modes"]:
            about = {"l2": mode, "config": "made up", "rel_error": 1e-3, "begin_s": begin, "end_s": begin + 0.5}
            if case["group"] == "energy":
                send({**about, "calls": 10})
            else:
                us = 10.0 + 5 * (mode == "cold") + case["seq_q"] / 1000
                send({**about, "us": [us, us + 1, us + 2, us + 1, us], "launches": 3, "how": "graph"})
        send({"done": True, "lost": ""})


if __name__ == "__main__":
    main()
