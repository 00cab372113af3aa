"""The comparison as one HTML file that holds its pictures, and needs nothing else."""

import html
import math
from collections.abc import Callable
from pathlib import Path

from querylife_gateway.comparison.measures import Compared, K, difference
from querylife_gateway.comparison.rankings import RankedProduct, Side

STYLE = (Path(__file__).parents[1] / "pages" / "style.css").read_text("utf-8")


def render(a: Side, b: Side, compared: list[Compared], picture: Callable[[RankedProduct], str]) -> str:
    """picture: a data URI, or "" where a product has none."""
    sections = "".join(_section(each, picture) for each in compared)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>querylife: two rankings of {len(compared)} queries</title><style>{STYLE}</style></head>
<body><div class="page"><header><h1>Two rankings of {len(compared)} queries</h1>
<p>A: {html.escape(a.name)}<br>B: {html.escape(b.name)}</p><p>{_verdict(compared)}</p></header>
<main>{sections}</main></div></body></html>
"""


def _verdict(compared: list[Compared]) -> str:
    mean, low, high = difference(compared)
    alike = sum(each.overlap for each in compared) / max(1, len(compared))
    text = f"The first {K} products overlap by {alike:.0%} on average."
    if math.isnan(mean):
        return text + " Without judgements nobody can say which is better: the least alike queries come first."
    won, lost = (sum(sign * each.won > 0 for each in compared) for sign in (1, -1))
    return (
        f"{text} nDCG@{K} of B is {mean:+.4f} (95% interval {low:+.4f} to {high:+.4f}, paired over queries) from A's: "
        f"{won} won, {lost} lost. Those come first."
    )


def _section(each: Compared, picture: Callable[[RankedProduct], str]) -> str:
    ids = {name: {product.id for product in ranking[:K]} for name, ranking in (("a", each.a), ("b", each.b))}
    note = f"{each.overlap:.0%} in common"
    if not math.isnan(each.won):
        note += f", nDCG@{K} {each.ndcg_a:.3f} and {each.ndcg_b:.3f} ({each.won:+.3f})"
    columns = "".join(
        f'<section aria-label="Ranking {name}"><h3>{name}</h3><ol class="results">'
        + "".join(
            _card(product, rank, product.id not in ids[other], picture) for rank, product in enumerate(ranking[:K], 1)
        )
        + "</ol></section>"
        for name, other, ranking in (("A", "b", each.a), ("B", "a", each.b))
    )
    return f'<h2>{html.escape(each.query)} <small class="quiet">{note}</small></h2><div class="sides">{columns}</div>'


def _card(product: RankedProduct, rank: int, is_only: bool, picture: Callable[[RankedProduct], str]) -> str:
    source = picture(product)
    title = html.escape(product.title or product.product_type or product.id, quote=True)
    image = f'<img alt="{title}" src="{source}">' if source else '<div class="none">no picture</div>'
    return (
        f'<li class="product{" only" if is_only else ""}"><span class="rank">{rank}</span>'
        f'<div class="picture">{image}</div><div class="about"><h4>{title}</h4>'
        f'<span class="quiet">{product.score:.2f}</span></div></li>'
    )
