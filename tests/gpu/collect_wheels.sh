#!/usr/bin/env bash
# Collect the packages that the step `models` imports in .gpu-wheels/, except
# those that a GPU machine with torch, torchvision, timm and pytest has:
#
#     tests/gpu/collect_wheels.sh [PYTHON]
#
# For CPython 3.12 on Linux x86_64. PYTHON (default: python3) only runs pip.
# The old folder is replaced when all wheels are there.
set -euo pipefail

python=${1:-python3}
target=3.12
limit=$((64 * 1024 * 1024))
cd "$(dirname "$0")/../.."

# These are released as source. pip builds them in an environment without
# torch, so mmcv has no operators. without_mmcv_ops.py replaces them.
sources=(onedl-mmcv==2.3.6 onedl-mmdetection==3.5.1
         onedl-mmsegmentation==1.4.2)
wheels=(onedl-mmengine==0.10.12 addict==2.4.0 termcolor==3.3.0
        yapf==0.43.0 platformdirs==4.14.8
        imaug==0.4.3 pycocotools==2.0.11 shapely==2.2.0 terminaltables==3.1.10
        ftfy==6.3.1 prettytable==3.18.0 wcwidth==0.9.4)

part=.gpu-wheels.part
trap 'rm -rf "$part"' EXIT
rm -rf "$part"

pip() { "$python" -m pip --disable-pip-version-check -q "$@"; }

pip wheel --no-cache-dir --no-deps -w "$part" "${sources[@]}"
pip download --no-deps --only-binary=:all: --python-version "$target" \
    --implementation cp --platform manylinux_2_28_x86_64 \
    --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 -d "$part" "${wheels[@]}"

wanted=$((${#sources[@]} + ${#wheels[@]}))
found=$(find "$part" -name '*.whl' | wc -l)
if [ "$found" != "$wanted" ]; then
    echo "collect_wheels.sh: $found wheels instead of $wanted" >&2
    exit 1
fi
for name in mmcv mmdetection mmsegmentation; do
    # Another tag means that it was compiled for this machine.
    if ! ls "$part/onedl_$name"-*-py3-none-any.whl > /dev/null; then
        echo "collect_wheels.sh: onedl-$name is not a pure wheel" >&2
        exit 1
    fi
done
bytes=$(cat "$part"/*.whl | wc -c)
if [ "$bytes" -gt "$limit" ]; then
    echo "collect_wheels.sh: $bytes bytes are more than $limit" >&2
    exit 1
fi
rm -rf .gpu-wheels
mv "$part" .gpu-wheels
echo ".gpu-wheels: $found wheels, $bytes bytes"
