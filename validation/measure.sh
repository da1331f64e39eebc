#!/usr/bin/env bash
# One full run on a machine with a GPU, PyTorch and Triton, from a bare checkout and without a network.
#     validation/measure.sh FOLDER [MINUTES] [OPTION...]        PYTHON names the interpreter; python3 by default
# Leaves measured.csv, measured-failures.csv, measured.log and report.json in FOLDER. Run again, it goes on.
set -euo pipefail
folder=${1:?where to write}
minutes=${2:-8}
shift $(($# < 2 ? $# : 2))
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/.."
# Ended like Ctrl-C should it not keep to its time: the rows so far are kept.
PYTHONUNBUFFERED=1 timeout --signal=TERM --kill-after=15 "$(awk "BEGIN {print int(60 * $minutes + 45)}")" \
  "${PYTHON:-python3}" -m fusemodel.validate.measure --minutes "$minutes" --out "$folder/measured.csv" \
  --report "$folder/report.json" "$@"
