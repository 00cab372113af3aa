"""From two descriptions to a verdict: features of a (query, product) pair, and their weights.

research.judge.quality fits the weights by logistic regression on labelled pairs. judges/<name>.json holds them, the two
thresholds between which the judge abstains, and what they were fitted on: the similarities of another encoder, or
another generator's descriptions, have other distributions.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from enum import Enum
from importlib import resources
from pathlib import Path

from genfilt_server.generation.prompts import Description
from querylife.errors import ArtifactError

UNKNOWN = "unknown"
ATTRIBUTES = ("colour", "gender", "use")
FAMILIES = (
    {"blue", "navy", "turquoise", "teal"},
    {"grey", "charcoal", "silver", "steel", "metallic"},
    {"brown", "tan", "khaki", "bronze", "copper", "rust"},
    {"beige", "cream", "off white", "white", "nude", "skin", "taupe"},
    {"red", "maroon", "burgundy"},
    {"pink", "rose", "magenta", "peach"},
    {"purple", "lavender", "mauve"},
    {"green", "olive"},
    {"yellow", "mustard", "gold"},
)
COMPATIBLE_GENDERS = {
    "men": {"unisex"},
    "women": {"unisex"},
    "boys": {"unisex"},
    "girls": {"unisex"},
    "unisex": {"men", "women"},
}


class Verdict(Enum):
    MATCH = "match"
    NO_MATCH = "no_match"
    ABSTAIN = "abstain"


@dataclass(frozen=True)
class Judgement:
    """probability: calibrated, in [0, 1], that the product answers the query."""

    verdict: Verdict
    probability: float


@dataclass(frozen=True)
class Evidence:
    """What is known of one (query, product) pair.

    Similarities are cosines in [-1, 1]; confidences are mean log-probabilities per token, at most 0.
    """

    query: Description
    product: Description
    title_similarity: float
    phrase_similarity: float
    type_similarity: float
    query_confidence: float
    product_confidence: float

    def features(self) -> dict[str, float]:
        """Named numbers, each about in [-1, 1]."""
        same_type = self.query.product_type == self.product.product_type
        features = {
            "title_similarity": self.title_similarity,
            "phrase_similarity": self.phrase_similarity,
            "type_similarity": self.type_similarity,
            "type_same": float(same_type),
            "query_confidence": max(-1.0, self.query_confidence),
            "product_confidence": max(-1.0, self.product_confidence),
        }
        for attribute in ATTRIBUTES:
            agreement = _agreement(attribute, getattr(self.query, attribute), getattr(self.product, attribute))
            for outcome in ("same", "near", "other", "unstated"):
                features[f"{attribute}_{outcome}"] = float(agreement == outcome)
            features[f"{attribute}_same_type"] = float(agreement in ("same", "free") and same_type)
        agreements = [_agreement(name, getattr(self.query, name), getattr(self.product, name)) for name in ATTRIBUTES]
        features["all_agree"] = float(same_type and all(each in ("same", "free") for each in agreements))
        return features


def _agreement(attribute: str, asked: str, offered: str) -> str:
    """Compare one attribute: "free", "unstated", "same", "near" or "other".

    free: the query does not ask for it; unstated: the product does not say; near: a related value.
    """
    if asked == UNKNOWN:
        return "free"
    if offered == UNKNOWN:
        return "unstated"
    if asked == offered:
        return "same"
    if attribute == "colour":
        near = any(asked in family and offered in family for family in FAMILIES)
    else:
        near = attribute == "gender" and offered in COMPATIBLE_GENDERS.get(asked, set())
    return "near" if near else "other"


@dataclass(frozen=True)
class Judge:
    """probability = sigmoid(bias + weights . features); at least match_from: match; below no_match_to: no match.

    fitted_on: identities of the "encoder" and the "generator" whose evidence the numbers were fitted on.
    """

    bias: float
    weights: dict[str, float]
    match_from: float
    no_match_to: float
    fitted_on: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Judge":
        """Raises ArtifactError when the file holds no judge."""
        try:
            return cls(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            wanted = "want JSON from research.judge.quality --fit-out"
            raise ArtifactError(f"{path}: found {type(error).__name__} ({error}), {wanted}") from error

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", "utf-8")

    @property
    def version(self) -> str:
        """A hash of the numbers: other numbers are another judge."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    def provenance_mismatches(self, **identities: str) -> list[str]:
        """A sentence for each identity (encoder=, generator=) that the numbers were not fitted on."""
        return [
            f"the judge was fitted on the {kind} {self.fitted_on.get(kind, 'unknown')}, found {identity}"
            for kind, identity in identities.items()
            if self.fitted_on.get(kind) != identity
        ]

    def judge(self, evidence: Evidence) -> Judgement:
        """The verdict on one pair. Raises KeyError where the weights name a feature that evidence does not have."""
        features = evidence.features()
        logit = self.bias + sum(weight * features[name] for name, weight in self.weights.items())
        probability = 1 / (1 + math.exp(-max(-30.0, min(30.0, logit))))
        if probability >= self.match_from:
            return Judgement(Verdict.MATCH, probability)
        return Judgement(Verdict.NO_MATCH if probability < self.no_match_to else Verdict.ABSTAIN, probability)

    @staticmethod
    def abstain() -> Judgement:
        """The judgement on a pair of which one side has a fault."""
        return Judgement(Verdict.ABSTAIN, 0.0)


def shipped_judge(encoder: str) -> Path:
    """The judge's file in this package for an encoder; for a checkpoint folder, that of querylife-mini."""
    name = "minilm.json" if encoder == "minilm" else "querylife_mini.json"
    return Path(str(resources.files("genfilt_server.judge") / "judges" / name))
