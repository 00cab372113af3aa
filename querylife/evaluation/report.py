"""The report of an evaluation: Markdown tables, and the figures as JSON."""

import json
from dataclasses import dataclass, field
from pathlib import Path

Cell = str | float


@dataclass
class Table:
    """rows: column name to value; a column may be missing in some rows."""

    title: str
    rows: list[dict[str, Cell]] = field(default_factory=list)

    def markdown(self) -> str:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        lines += [f"| {' | '.join(str(row.get(name, '')) for name in columns)} |" for row in self.rows]
        return f"### {self.title}\n\n" + "\n".join(lines) + "\n"


def write_report(out: Path, title: str, tables: list[Table]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(f"## {title}\n\n" + "\n".join(table.markdown() for table in tables))
    (out / "report.json").write_text(json.dumps({table.title: table.rows for table in tables}, indent=1) + "\n")


def with_interval(interval: tuple[float, float, float]) -> str:
    """mean [low, high]"""
    return f"{interval[0]:.3f} [{interval[1]:.3f}, {interval[2]:.3f}]"
