"""Examples for tuning the default generator: `python -m research.generator.examples`.

Reads a catalogue whose rows say what the products are (Parquet: title, articleType, baseColour, gender, usage, split)
and writes JSON Lines: {"kind": "title" or "query", "text": ..., "description": {...}}. Titles come from the train
split. Queries are written from a product's labels and the shopper's words of querylife/data/fashion_types.toml; every
third word of a type is held out, so that measuring can ask with words the generator was never shown.
"""

import argparse
import json
import random
import sys
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow.parquet

Row = dict[str, Any]

COLOURS = {
    "navy blue": "navy",
    "grey melange": "grey",
    "multi": "multicolour",
    "turquoise blue": "turquoise",
    "sea green": "green",
    "lime green": "green",
    "fluorescent green": "green",
    "coffee brown": "brown",
    "mushroom brown": "brown",
}
PEOPLE = {
    "men": ("men", "man", "mens", "men's", "him", "guys"),
    "women": ("women", "woman", "womens", "women's", "ladies", "her"),
    "boys": ("boys", "boy", "boy's"),
    "girls": ("girls", "girl", "girl's"),
    "unisex": ("unisex",),
}
FEMININE = ("women", "girls")
TEMPLATES = (
    "{colour} {name}",
    "{name} {colour}",
    "{colour} {name} for {person}",
    "{name} for {person}",
    "{person} {name}",
    "{person} {colour} {name}",
    "{colour} {name} {person}",
    "{name}",
    "{use} {name}",
    "{colour} {use} {name} for {person}",
    "{name} in {colour}",
    "{name} in {colour} for {person}",
)
SPOKEN_USES = ("sports", "formal", "ethnic", "party", "casual")
PLURALS = [
    "shoes",
    "jeans",
    "shorts",
    "trousers",
    "pants",
    "sunglasses",
    "heels",
    "flats",
    "socks",
    "sandals",
    "leggings",
    "flops",
    "briefs",
    "earrings",
    "tights",
    "booties",
    "capris",
]
SPELLED = {"tshirts": "t-shirt", "lounge tshirts": "lounge t-shirt", "ties": "tie", "scarves": "scarf"}


def product_type(article_type: str) -> str:
    """The catalogue's type as the generator is to spell it: lower case, and singular where shops say so."""
    text = article_type.lower()
    if text in SPELLED or text.endswith((*PLURALS, "ss", "bra")):
        return SPELLED.get(text, text)
    for ending, singular in (("sses", "ss"), ("ches", "ch"), ("ies", "y"), ("s", "")):
        if text.endswith(ending):
            return text.removesuffix(ending) + singular
    return text


def colour(base_colour: str) -> str:
    """The catalogue's colour as the schema spells it, "unknown" where it has none."""
    text = (base_colour or "").lower()
    return COLOURS.get(text, text) or "unknown"


def use(usage: str) -> str:
    text = (usage or "").lower().replace("smart ", "")
    return text or "unknown"


def shown_colour(title: str, row: Row, palette: list[str]) -> str:
    """The colour that a title names: the label's where it is among them, else the first, else "unknown"."""
    lowered = title.lower()
    label = colour(row["baseColour"])
    if label in lowered or (label == "multicolour" and "multi" in lowered):
        return label
    named = [(lowered.index(name), name) for name in palette if f" {name} " in f" {lowered} "]
    return min(named)[1] if named else "unknown"


def spoken_names(held_out: bool) -> dict[str, list[str]]:
    """What shoppers call each article type: every third word held out, or the others."""
    file = resources.files("querylife") / "data" / "fashion_types.toml"
    types = tomllib.loads(file.read_text("utf-8"))
    words = {key: [name.strip() for name in entry["names"].split(";")] for key, entry in types.items()}
    return {
        key: [name for index, name in enumerate(names) if (index % 3 == 2) == held_out] for key, names in words.items()
    }


def write_query(row: Row, names: list[str], choose: random.Random) -> tuple[str, dict[str, str]]:
    """A query that the product answers, and what the query asks for ("unknown": anything)."""
    template = choose.choice(TEMPLATES)
    wanted = {"product_type": product_type(row["articleType"])}
    parts = {"name": choose.choice(names)}
    for attribute, value in (("colour", colour(row["baseColour"])), ("gender", row["gender"].lower())):
        slot = "person" if attribute == "gender" else attribute
        asked = f"{{{slot}}}" in template and value != "unknown"
        wanted[attribute] = value if asked else "unknown"
        if slot == "person":
            parts[slot] = choose.choice(PEOPLE[value]) if asked else ""
        else:
            parts[slot] = (row["baseColour"].lower() if choose.random() < 0.5 else value) if asked else ""
    spoken = "{use}" in template and use(row["usage"]) in SPOKEN_USES
    wanted["use"] = use(row["usage"]) if spoken else "unknown"
    parts["use"] = wanted["use"] if spoken else ""
    return " ".join(template.format(**parts).split()), wanted


def examples(rows: list[Row], palette: list[str], titles: int, queries: int, seed: int) -> Iterator[Row]:
    choose = random.Random(seed)
    for row in choose.sample(rows, titles):
        title = row["title"]
        yield {
            "kind": "title",
            "text": title,
            "description": {
                "product_type": product_type(row["articleType"]),
                "colour": shown_colour(title, row, palette),
                "gender": row["gender"].lower(),
                "use": use(row["usage"]),
            },
        }
    names = spoken_names(held_out=False)
    for row in choose.sample([row for row in rows if names.get(row["articleType"])], queries):
        text, wanted = write_query(row, names[row["articleType"]], choose)
        yield {"kind": "query", "text": text, "description": wanted}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "catalogue", type=Path, help="Parquet with title, articleType, baseColour, gender, usage, split"
    )
    parser.add_argument("out", type=Path, help="JSON Lines to write")
    parser.add_argument("--titles", type=int, default=6000, help="examples from titles")
    parser.add_argument("--queries", type=int, default=3000, help="examples from queries")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rows = [row for row in pyarrow.parquet.read_table(options.catalogue).to_pylist() if row["split"] == "train"]
    schema = json.loads(
        (resources.files("genfilt_server.generation") / "schemas" / "description_v1.json").read_text("utf-8")
    )
    palette = schema["properties"]["colour"]["enum"][1:]
    written = list(examples(rows, palette, options.titles, options.queries, options.seed))
    random.Random(options.seed).shuffle(written)
    options.out.write_text("".join(json.dumps(example) + "\n" for example in written), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
