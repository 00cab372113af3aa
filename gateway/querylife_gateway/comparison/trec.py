"""TREC run and qrels files, which trec_eval and ir-measures read. Query numbers stand beside them in queries.tsv."""

from collections.abc import Sequence
from pathlib import Path

from querylife_gateway.comparison.measures import Compared, Grades


def write_files(folder: Path, compared: Sequence[Compared], grades: Grades) -> list[Path]:
    """a.run, b.run, queries.tsv and, where there are judgements, qrels. Returns their paths."""
    numbers = {each.query: f"q{number}" for number, each in enumerate(compared, 1)}
    runs = {
        name: [
            f"{numbers[each.query]} Q0 {_token(product.id)} {rank} {product.score:.6f} {name}"
            for each in compared
            for rank, product in enumerate(each.a if name == "a" else each.b, 1)
        ]
        for name in ("a", "b")
    }
    files = {
        "a.run": runs["a"],
        "b.run": runs["b"],
        "queries.tsv": [f"{number}\t{' '.join(query.split())}" for query, number in numbers.items()],
    }
    if grades:
        files["qrels"] = [
            f"{number} 0 {_token(product_id)} {grade}"
            for query, number in numbers.items()
            for product_id, grade in grades.get(query, {}).items()
        ]
    for name, lines in files.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return [folder / name for name in files]


def _token(identifier: str) -> str:
    """The formats are split at spaces."""
    return "_".join(identifier.split()) or "_"
