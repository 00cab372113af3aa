"""bf16 and int8 towers beside float32 ones: parity, processor time and, with --evaluate, relevance.

    .venv/bin/python -m research.precisions --evaluate --data ../shared/data

Takes a minute; with --evaluate a quarter of an hour on two cores.
"""

import argparse
import logging
import sys
from pathlib import Path

from querylife.artifacts.shipped_weights import SHIPPED_CHECKPOINT
from querylife.contract import TEXT_TOWER, TOWERS, VISION_TOWER, Model
from querylife_build import checkpoint
from querylife_build.export.folder import export_folder
from querylife_build.parity.backends import onnx_backend, openvino_backend
from querylife_build.parity.gate import measure_parity
from querylife_build.parity.reference import compute_reference
from querylife_build.parity.sample import make_sample
from querylife_build.quantize.int8 import quantise_towers
from querylife_build.sources import source_sha256
from research.precisions import relevance
from research.precisions.cost import measure_cost
from research.precisions.relevance import Tower, Towers


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    source = source_sha256(options.checkpoint, ("querylife_build.export.folder",), "fp32")
    fp32 = export_folder(options.checkpoint, options.folder, "fp32", source).files
    int8 = {tower: options.folder / "int8" / f"{tower.name}.onnx" for tower in TOWERS}
    model = checkpoint.open_model(options.checkpoint)
    tokenizer = checkpoint.open_tokenizer(model, options.folder / "tokenizer.json")
    reference = compute_reference(model, make_sample(tokenizer, model.config.vision.image_size))
    quantise_towers(fp32, int8, reference)
    for precision, run in (
        ("bf16", openvino_backend(fp32, model.config.text.max_tokens)),
        ("int8", onnx_backend(int8, "int8")),
    ):
        for tower, parity in measure_parity(reference, run).items():
            print(f"parity   {precision} {tower.name:13} {parity.figures()}", flush=True)
    for line in measure_cost({"fp32": fp32, "bf16": fp32, "int8": int8}, reference):
        print(line, flush=True)
    if options.evaluate:
        products = relevance.fashion_corpus(options.data)
        size = model.config.vision.image_size
        tables, lost = relevance.compare(_variants(fp32, int8), products, tokenizer, size, options.cache)
        print("", *(table.markdown() for table in tables), sep="\n")
        print(f"relevance: {', '.join(lost) or 'nothing'} loses more than {relevance.MARGIN}")
    return 0


def _variants(fp32: dict[Model, Path], int8: dict[Model, Path]) -> dict[str, Towers]:
    wide, brief, narrow = (
        {model: Tower(path, precision) for model, path in files.items()}
        for files, precision in ((fp32, "fp32"), (fp32, "bf16"), (int8, "int8"))
    )
    return {
        "fp32": wide,
        "bf16": brief,
        "int8 text": wide | {TEXT_TOWER: narrow[TEXT_TOWER]},
        "int8 vision": wide | {VISION_TOWER: narrow[VISION_TOWER]},
        "int8": narrow,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m research.precisions", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED_CHECKPOINT, metavar="DIR")
    parser.add_argument("--folder", type=Path, default=Path("out/onnx"), metavar="DIR", help="where exports are kept")
    parser.add_argument("--evaluate", action="store_true", help="compare relevance with float32")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="DIR", help="the shared data")
    parser.add_argument(
        "--cache", type=Path, default=Path("out/precision-pictures"), metavar="DIR", help="picture vectors"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
