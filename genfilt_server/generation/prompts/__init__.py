"""What the generator is asked, in versioned files beside this one, and how its answer is spelled.

A change of a prompt's or the schema's text changes the answers: give it a new version, since ledgers and caches are
keyed by it. A prompt is `head + body`: the head is the same for every product, so that vLLM's prefix cache computes
it once.
"""

import json
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

SCHEMA_VERSION = "description-v1"


@dataclass(frozen=True)
class Description:
    """What a product is, or what a query asks for; "unknown" where nothing is said."""

    product_type: str
    colour: str = "unknown"
    gender: str = "unknown"
    use: str = "unknown"

    def phrase(self) -> str:
        """What is known, as a shopper would say it: "black sports shoes men"."""
        return " ".join(word for word in (self.colour, self.product_type, self.gender) if word != "unknown")

    def attributes(self) -> dict[str, str]:
        """What is known beside the type."""
        known = {"colour": self.colour, "gender": self.gender, "use": self.use}
        return {name: value for name, value in known.items() if value != "unknown"}


@dataclass(frozen=True)
class Prompt:
    """A way to ask for descriptions. version names it; head precedes every title and every query."""

    version: str
    head: str

    def of_title(self, title: str, product_type: str = "") -> str:
        """The prompt whose continuation describes a product; product_type is what the shop calls it, if anything."""
        shop = f" ({_one_line(product_type)})" if product_type else ""
        return f"{self.head}Title: {_one_line(title)}{shop}\nProduct:\n"

    def of_query(self, query: str) -> str:
        """The prompt whose continuation says what a query asks for."""
        return f"{self.head}Query: {_one_line(query)}\nProduct:\n"


def schema() -> dict[str, Any]:
    """The JSON schema that every description satisfies."""
    file = resources.files("genfilt_server.generation") / "schemas" / f"{SCHEMA_VERSION.replace('-', '_')}.json"
    loaded: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return loaded


def schema_pattern() -> str:
    """The regular expression of the schema's JSON as json.dumps spaces it.

    A decoder that is given the schema itself lets whitespace in between, and a weak generator may never leave it.
    """
    fields = []
    for name, rule in schema()["properties"].items():
        value = rule["pattern"].strip("^$") if "pattern" in rule else f"({'|'.join(rule['enum'])})"
        fields.append(f'"{name}": "{value}"')
    return r"\{" + ", ".join(fields) + r"\}"


def spell(description: Description) -> str:
    """The JSON that a generator is trained on: spaced as the schema-constrained decoder spaces it."""
    return json.dumps(asdict(description))


def _one_line(text: str) -> str:
    """Text with every run of whitespace and control characters as one space: it cannot end its line of the prompt."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())


def _read(name: str) -> str:
    return (resources.files(__name__) / name).read_text("utf-8")


FEW_SHOT = Prompt("few-shot-v1", _read("few_shot_v1.txt"))
TUNED = Prompt("tuned-v1", "")
PROMPTS = {prompt.version: prompt for prompt in (FEW_SHOT, TUNED)}
