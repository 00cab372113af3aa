"""Rankings from a gateway: one search per query."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from querylife.errors import ConfigError, ServerFaultError, UnavailableError

TIMEOUT_S = 60.0
FLAGS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class RankedProduct:
    """One product of a ranking. score: in [0, 1]."""

    id: str
    score: float
    title: str
    product_type: str
    has_picture: bool


@dataclass(frozen=True)
class Side:
    """A gateway and the settings of its searches: http://HOST:PORT?hybrid=true&collection=candidate&correct=false."""

    name: str
    address: str
    settings: dict[str, Any] = field(default_factory=dict)
    key: str | None = None

    @classmethod
    def parse(cls, text: str, key: str | None = None) -> "Side":
        """Raises ConfigError for what is no address of a gateway."""
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(f"found {text!r}, want http://HOST:PORT, with settings after a ?")
        settings: dict[str, Any] = {}
        for name, value in parse_qsl(parts.query):
            if name == "collection":
                settings[name] = value
            elif name in ("hybrid", "correct") and value.lower() in FLAGS:
                settings[name] = FLAGS[value.lower()]
            else:
                want = "hybrid or correct with true or false, or collection"
                raise ConfigError(f"{text}: found {name}={value}, want {want}")
        return cls(text, urlunsplit((parts.scheme, parts.netloc, "", "", "")), settings, key)

    def search(self, query: str, k: int) -> list[RankedProduct]:
        """The k best products. Raises what `_open` raises."""
        body = json.dumps({"query": query, "k": k, **self.settings}).encode()
        products = json.loads(self._open("/v1/search", body))["products"]
        return [
            RankedProduct(
                product["id"],
                product["score"],
                str(product["attributes"].get("title", "")),
                str(product["attributes"].get("product_type", "")),
                product["has_picture"],
            )
            for product in products
        ]

    def picture(self, identifier: str) -> str:
        """A data URI."""
        content = self._open(f"/pictures/{quote(identifier, safe='')}")
        return f"data:image;base64,{base64.b64encode(content).decode('ascii')}"

    def _open(self, path: str, body: bytes | None = None) -> bytes:
        """Raises UnavailableError where nobody answers, ServerFaultError for any other status than 200."""
        headers = {"content-type": "application/json"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        try:
            with urlopen(Request(self.address + path, body, headers), timeout=TIMEOUT_S) as answer:
                content: bytes = answer.read()
                return content
        except HTTPError as error:
            with error:
                raise ServerFaultError(f"{self.name}: status {error.code}: {_message(error.read())}") from error
        except (URLError, OSError) as error:
            raise UnavailableError(f"{self.name}: {error}") from error


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return repr(body[:200])
