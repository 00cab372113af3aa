"""The demo's page: one HTML file that holds its pictures, and needs nothing else."""

import base64
import html
import io
import re
from dataclasses import dataclass

from PIL import Image

from querylife.catalog.reader import CatalogProduct

THUMBNAIL = (180, 240)  # at most, width and height in pixels
# Words of a query that no title is expected to repeat.
SMALL_WORDS = frozenset(
    """
    a an and any for from i in is it me my of on or some something that the this to wear what with
    """.split()
)


@dataclass(frozen=True)
class Ranking:
    """One query and its best products, best first, each with its score in [0, 1]."""

    query: str
    best: list[tuple[CatalogProduct, float]]
    milliseconds: float


@dataclass(frozen=True)
class Summary:
    """What a reader should know about the rankings. weights says where the model's knowledge comes from."""

    model: str
    weights: str
    catalog: str
    products: int
    without_picture: int
    at_fault: int
    products_per_s: float


def render(summary: Summary, rankings: list[Ranking]) -> str:
    """The whole page."""
    links = " ".join(f'<a href="#q{i}">{html.escape(ranking.query)}</a>' for i, ranking in enumerate(rankings))
    sections = "\n".join(_section(i, ranking) for i, ranking in enumerate(rankings))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>querylife: {len(rankings)} queries over {summary.products:,} products</title><style>{STYLE}</style></head>
<body><header><h1>querylife</h1>{_facts(summary)}<nav>{links}</nav></header>
<main>{sections}</main>
<footer>The number under a picture is the calibrated probability that the product answers the query.
<i>Title lacks</i> lists the query's words that the title does not say: there, picture and meaning decided.</footer>
</body></html>
"""


def _facts(summary: Summary) -> str:
    notes = [f"{summary.products:,} products from {summary.catalog}"]
    if summary.without_picture:
        notes.append(f"{summary.without_picture:,} without a picture")
    if summary.at_fault:
        notes.append(f"{summary.at_fault:,} with a fault")
    notes.append(f"embedded at {summary.products_per_s:.0f} products/s")
    ranked_by = f"<b>{html.escape(summary.model)}</b>: {html.escape(summary.weights)}"
    return f"<p>Ranked by {ranked_by}.</p><p>{html.escape(', '.join(notes))}.</p>"


def _section(number: int, ranking: Ranking) -> str:
    cards = "".join(_card(rank, ranking.query, *card) for rank, card in enumerate(ranking.best, 1))
    return f"""<section id="q{number}"><h2>{html.escape(ranking.query)}<small>{ranking.milliseconds:.0f} ms</small></h2>
<div class="row">{cards or "<p>No product could be scored.</p>"}</div></section>"""


def _card(rank: int, query: str, product: CatalogProduct, score: float) -> str:
    lacks = missing_words(query, product.title)
    note = f'<p class="lacks">title lacks: {html.escape(", ".join(lacks))}</p>' if lacks else ""
    return f"""<figure>{_picture(product)}<span class="place">{rank}</span>
<div class="bar"><i style="width:{100 * score:.0f}%"></i></div><b>{score:.2f}</b>
<figcaption>{html.escape(product.title or "(no title)")}</figcaption>
<p class="kind">{html.escape(product.product_type)}</p>{note}</figure>"""


def missing_words(query: str, title: str) -> list[str]:
    """Words of the query that the title says in no form: neither stem contains the other's first letters."""
    said = [_stem(word) for word in _words(title)]
    asked = [word for word in _words(query) if word not in SMALL_WORDS]
    return [word for word in asked if not any(stem.startswith(_stem(word)) for stem in said)]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _stem(word: str) -> str:
    return re.sub(r"(?<=\w\w\w)(es|s|ies|y)$", "", word)


def _picture(product: CatalogProduct) -> str:
    if product.image is None:
        return '<div class="empty">no picture</div>'
    try:
        thumbnail = _thumbnail(product.image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return '<div class="empty">broken picture</div>'
    encoded = base64.b64encode(thumbnail).decode()
    return f'<img alt="{html.escape(product.title, quote=True)}" src="data:image/jpeg;base64,{encoded}">'


def _thumbnail(image: bytes) -> bytes:
    file = io.BytesIO()
    with Image.open(io.BytesIO(image)) as picture:
        small = picture.convert("RGB")
        small.thumbnail(THUMBNAIL)
        small.save(file, "JPEG", quality=85)
    return file.getvalue()


STYLE = """
:root { color-scheme: light dark; --line: #8884; --accent: #0a7d5a }
* { box-sizing: border-box }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1240px; padding: 24px }
h1 { font-size: 28px; margin: 0 0 4px }
header p { margin: 2px 0 }
nav { display: flex; flex-wrap: wrap; gap: 6px; margin: 14px 0 0 }
nav a { border: 1px solid var(--line); border-radius: 99px; color: inherit; padding: 3px 12px; text-decoration: none }
h2 { border-top: 1px solid var(--line); font-size: 21px; margin: 26px 0 12px; padding-top: 18px }
h2 small { color: gray; font-size: 12px; font-weight: 400; margin-left: 10px }
.row { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)) }
figure { border: 1px solid var(--line); border-radius: 10px; margin: 0; overflow: hidden; padding: 0 10px 10px }
figure { position: relative }
figure img, .empty { aspect-ratio: 3/4; background: #fff; display: block; margin: 0 -10px 8px; object-fit: contain }
figure img, .empty { width: calc(100% + 20px) }
.empty { align-items: center; background: #8882; color: gray; display: flex; justify-content: center }
.place { background: #000a; border-radius: 0 0 8px; color: #fff; font-size: 12px; padding: 2px 8px }
.place { left: 0; position: absolute; top: 0 }
.bar { background: #8883; border-radius: 3px; height: 5px }
.bar i { background: var(--accent); border-radius: 3px; display: block; height: 5px }
figcaption { font-size: 13px; margin-top: 2px }
.kind, .lacks, footer { color: gray; font-size: 12px; margin: 2px 0 0 }
.lacks { color: #b3541e }
footer { border-top: 1px solid var(--line); margin-top: 30px; padding-top: 12px }
"""
