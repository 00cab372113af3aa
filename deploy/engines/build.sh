#!/bin/sh
# Builds the GPU profile's repository in NVIDIA's TensorRT container of the release that Triton serves with, on the GPU
# that serves.
#
#   deploy/engines/build.sh [options of querylife-build engines]
#   STEP=refit deploy/engines/build.sh [options of querylife-build refit]
#
# IMAGE  NVIDIA's TensorRT image (nvidia/tensorrt:25.11-py3 in its registry) with the release tag of the Triton image
#        that serves: a plan runs only in the TensorRT that built it
# GPU    which GPU, as docker's --gpus takes it
set -eu
IMAGE=${IMAGE:?want the TensorRT image whose release tag is that of the Triton image that serves}
GPU=${GPU:-device=0}
STEP=${STEP:-engines}
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
# One per image, on the host and owned by the caller, as everything that is built: only the first run installs torch.
ENVIRONMENT="$ROOT/out/engines-$(echo "$IMAGE" | tr -c '[:alnum:]\n' -)"
mkdir -p "$ENVIRONMENT"

# --system-site-packages: the container's own TensorRT must be the one that builds.
exec docker run --rm --gpus "$GPU" --ipc=host --user "$(id -u):$(id -g)" --env HOME=/environment \
    --volume "$ROOT:/querylife" --volume "$ENVIRONMENT:/environment" --workdir /querylife \
    "$IMAGE" sh -euc '
        [ -e /environment/installed ] || {
            python3 -m venv --system-site-packages /environment
            pip=/environment/bin/pip
            "$pip" install --quiet --no-deps -r requirements/triton.lock
            "$pip" install --quiet --constraint requirements/triton.lock -r requirements/gpu.lock
            "$pip" install --quiet --no-deps --no-build-isolation --editable .
            touch /environment/installed
        }
        case " $* " in *" fp8 "*) /environment/bin/pip install --quiet --no-deps -r requirements/fp8.lock ;; esac
        XDG_CACHE_HOME=/environment/cache exec /environment/bin/querylife-build "$0" "$@"
    ' "$STEP" "$@"
