"""The identity of a served model, in a form that Triton's server id can hold."""

import json
from dataclasses import asdict, dataclass

from querylife.artifacts.repository_lock import EngineLock
from querylife.errors import FingerprintMismatchError
from querylife.scoring import Calibration


@dataclass(frozen=True)
class ModelIdentity:
    """Servers of one identity answer with the same vectors and scores, but for rounding.

    name: for people. fingerprint: sha256 over the model's config and weights. preprocessing: versions of tokens and
    pixels, and what they make of the golden probe. precision: of the towers as served. image_size, pixels_version,
    image_fit: side of a decoded picture in pixels, the version of its decoding, and how it is made square
    (querylife.preprocessing.image.FITS). None where the server does not say.
    """

    name: str
    fingerprint: str
    preprocessing: str
    precision: str
    embedding_width: int
    calibration: Calibration
    image_size: int | None = None
    pixels_version: int | None = None
    image_fit: str = "pad"

    def encode(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)

    @classmethod
    def decode(cls, text: str) -> "ModelIdentity":
        """Raises ValueError for anything that encode did not write."""
        try:
            fields = json.loads(text)
            return cls(**fields | {"calibration": Calibration(**fields["calibration"])})
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise ValueError(f"found {text[:80]!r}, want a model's identity") from error


def check_fingerprint(subject: str, fingerprint: str, want: str) -> None:
    """Raise FingerprintMismatchError unless both fingerprints are known ("" is unknown) and equal.

    subject: what carries the fingerprint, for the message. want: the other one.
    """
    if fingerprint != want or not want:
        raise FingerprintMismatchError(subject, fingerprint, want)


def identity(lock: EngineLock, profile: str) -> ModelIdentity:
    """profile: "cpu" or "gpu", the part of the repository that is served."""
    made = lock.preprocessing
    plans = lock.tensorrt.plans if profile == "gpu" and lock.tensorrt is not None else {}
    precisions = {
        name: plans[name].precision if name in plans else tower.precision for name, tower in lock.towers.items()
    }
    tokens = f"tokens {made.tokens_version} {made.tokens_sha256[:12]}"
    pixels = f"pixels {made.pixels_version} {made.pixels_sha256[:12]}"
    return ModelIdentity(
        name=lock.name,
        fingerprint=lock.model_fingerprint,
        preprocessing=f"{tokens}, {pixels}",
        precision="/".join(sorted(set(precisions.values()))),
        embedding_width=lock.embedding_width,
        calibration=lock.calibration,
        image_size=lock.image_size,
        pixels_version=made.pixels_version,
        image_fit=lock.image_fit,
    )
