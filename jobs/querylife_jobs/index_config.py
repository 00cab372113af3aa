"""What an index run is told, and what it tells."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from querylife_client import ClientConfig
from querylife_client.config import Decode


@dataclass(frozen=True)
class IndexConfig:
    """One run. server: of collections that name none.

    timeout_s: seconds for each request. patience_s: seconds that a server or the store may be away.
    allowed_hosts: hosts whose image_url may be fetched, private addresses too; empty: any public host.
    decode: who decodes pictures, see ClientConfig.
    """

    catalogue: Path
    store: str
    server: str
    ledger: Path | None = None
    image_cache: Path | None = None
    refresh_images: bool = False
    allowed_hosts: tuple[str, ...] = ()
    token_file: Path | None = None
    tls_authorities: Path | None = None
    max_in_flight: int = 32
    timeout_s: float = 120.0
    patience_s: float = 300.0
    decode: Decode = ClientConfig.decode

    @property
    def ledger_path(self) -> Path:
        """Inside an embedded store's folder, else in the working directory."""
        scheme, _, rest = self.store.partition(":")
        folder = Path(rest) if scheme in ("lance", "qdrant") else Path()
        return self.ledger or folder / "vectors.ledger.sqlite"

    def beside_ledger(self, suffix: str) -> Path:
        """The ledger's path with another suffix."""
        return self.ledger_path.with_name(self.ledger_path.name.removesuffix(".ledger.sqlite") + suffix)


@dataclass
class IndexSummary:
    """What a run did to one collection. embedded: vectors that the server made; set_aside: fault -> rows."""

    collection: str
    rows: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    embedded: int = 0
    set_aside: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def __str__(self) -> str:
        faults = "".join(f", {name} {count}" for name, count in sorted(self.set_aside.items()))
        unchanged = self.rows - self.inserted - self.updated - self.set_aside.total()
        return (
            f"{self.collection}: {self.rows} rows: {self.inserted} inserted, {self.updated} updated, "
            f"{unchanged} unchanged, {self.deleted} deleted, {self.set_aside.total()} set aside{faults}; "
            f"{self.embedded} embedded, {self.seconds:.1f} s"
        )
