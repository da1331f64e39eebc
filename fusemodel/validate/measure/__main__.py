"""The command line for a machine that has a GPU and PyTorch and little else; the same as ``fusemodel measure``.

python -m fusemodel.validate.measure --minutes 8 --out FILE          (in the checkout)
python CHECKOUT/fusemodel/validate/measure --minutes 8 --out FILE    (from anywhere)
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

if not __package__:  # run by its path: the package lies three folders up
    sys.path[0] = str(Path(__file__).resolve().parents[3])

from fusemodel.errors import InputError
from fusemodel.validate.measure import GROUPS, Settings, measure
from fusemodel.validate.measure.text import line_progress, plan_data, plan_text, planned, report_data, report_text


def main(arguments: list[str] | None = None) -> int:
    """Parse, measure, print; the exit code."""
    parser = argparse.ArgumentParser(prog="measure", description="Time GPU kernels on this machine.")
    parser.add_argument("--out", default="measured.csv", help="table to append to (%(default)s)")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for the whole run (%(default)g)")
    parser.add_argument("--groups", default="", help=f"some of {','.join(GROUPS)}; by default all but the last two")
    parser.add_argument("--dtype", default="bf16", help="bf16 or fp16 (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the order (%(default)s)")
    parser.add_argument("--retry", action="store_true", help="try again what failed in an earlier run")
    parser.add_argument("--brief", action="store_true", help="time few launches after a pause: clocks stay up")
    parser.add_argument("--plan", "--dry-run", action="store_true", help="only list the points and the time they take")
    parser.add_argument("--report", metavar="FILE", help="also write what --json would print to this file")
    parser.add_argument("--json", action="store_true", help="print only JSON")
    given = parser.parse_args(arguments)
    groups = tuple(name.strip() for name in given.groups.split(",") if name.strip())
    settings = Settings(Path(given.out), given.minutes, groups, given.dtype, given.seed, given.retry, given.brief)
    try:
        if given.plan:
            plan = planned(settings)
            text = json.dumps(plan_data(plan), indent=2) if given.json else plan_text(plan)
        else:
            report = measure(settings, progress=None if given.json else line_progress())
            data = json.dumps(report_data(report), indent=2)
            text = data if given.json else report_text(report)
            if given.report:
                Path(given.report).write_text(data + "\n", encoding="utf-8")
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted: the rows so far are in {given.out}; the same command goes on\n")
        return 130
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
