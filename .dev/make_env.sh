#!/usr/bin/env bash
# Create or update a virtual environment with one family of mm libraries:
#
#     .dev/make_env.sh onedl|openmmlab|pretrain VENV [WHEEL [TORCH]]
#
# It installs the project from this clone, or from a built WHEEL. TORCH is a
# version; the default for each family is below.
#
# pretrain has OneDL's mmpretrain, which needs torchvision, and a torch with a
# matching torchvision. Its mmcv is built without operators, and it has no
# mmdet and no mmseg. openmmlab has its own mmpretrain.
#
# You can interrupt and repeat it. The file .ready is written last; while it
# fits, a second run does nothing. It takes minutes to build mmcv, so the wheel
# is kept for each torch and Python in ${XDG_CACHE_HOME:-~/.cache}/mmcyclemlp.
set -euo pipefail

usage='usage: make_env.sh onedl|openmmlab|pretrain VENV [WHEEL [TORCH]]'
family=${1:?$usage}
venv=${2:?$usage}
package=${3:+$(realpath "$3")}
cd "$(dirname "$0")/.."

ops=1 check='cv2, mmcv.ops, mmdet, mmseg'
case $family in
    # The headers of torch 2.14 need C++20. mmcv 2.3.6 is not built as C++20.
    onedl)     torch=2.13.0
               mmcv='onedl-mmcv==2.3.6' extras='onedl,triton,dev' ;;
    openmmlab) torch=2.1.2
               mmcv='mmcv==2.1.0' extras='openmmlab,openmmlab-pretrain,dev'
               check+=', mmpretrain' ;;
    pretrain)  torch=2.14.1
               mmcv='onedl-mmcv==2.3.6' extras='pretrain,bench,adapters,dev'
               ops=0 check='cv2, mmcv, mmpretrain' ;;
    *) echo "make_env.sh: no family '$family': onedl, openmmlab or" \
           'pretrain' >&2
       exit 2 ;;
esac
torch=${4:-$torch}
minor=${torch#*.}
vision="torchvision==0.$((${minor%%.*} + 15)).*"

stamp=$venv/.ready
want=$(cat setup.cfg pyproject.toml "$0" $package | cksum)$torch
if [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
    exit 0
fi

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

echo "[env] $venv: $family family, torch $torch"
"${PYTHON:-python3}" -m venv "$venv"
# To build mmcv and to run mmengine, setuptools < 82 is needed.
pip install -q "torch==$torch" 'setuptools>=80,<82' wheel ninja
# With a CPU build of torch, importing torchvision would fail.
cuda=$("$venv/bin/python" -W ignore -c \
    'import torch; print(torch.version.cuda or "")')
if [ -n "$cuda" ] || [ "$family" = pretrain ]; then
    pip install -q "$vision"
fi

if [ $ops = 1 ]; then
    key=$("$venv/bin/python" -W ignore -c 'import sys, torch
print(f"cp{sys.version_info[0]}{sys.version_info[1]}"
      f"-torch{torch.__version__}")')
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/mmcyclemlp/$key
    pattern=${mmcv//-/_}
    pattern=${pattern/==/-}
    wheel=$(ls "$cache/$pattern"-*.whl 2>/dev/null || true)
    if [ -z "$wheel" ]; then
        echo "[env] building $mmcv once for $key" \
            '(5 to 10 minutes on 2 cores)'
        mkdir -p "$cache"
        building=$(mktemp -d "$cache/building.XXXXXX")
        trap 'rm -rf "$building"' EXIT
        # pip's cache would not distinguish versions of torch.
        CFLAGS='-g0 -O1' pip wheel -q --no-cache-dir --no-build-isolation \
            --no-deps -w "$building" "$mmcv"
        mv "$building"/*.whl "$cache/"
        wheel=$(ls "$cache/$pattern"-*.whl)
    fi
    pip install -q --no-deps "$wheel"
else
    # An isolated build finds no torch, so it leaves out the operators.
    pip install -q --no-cache-dir --no-deps "$mmcv"
fi
if [ -n "$package" ]; then
    pip install -q "$package[${extras%,dev}]"
else
    pip install -q --no-build-isolation -e ".[$extras]"
fi
# Overwrite OpenCV with its headless files, which do not need libGL.
opencv=$("$venv/bin/python" -c \
    'from importlib.metadata import version; print(version("opencv-python"))')
pip install -q --force-reinstall --no-deps "opencv-python-headless==$opencv"
"$venv/bin/python" -W ignore -c "import $check"
printf '%s' "$want" > "$stamp"
echo "[env] $venv is ready"
