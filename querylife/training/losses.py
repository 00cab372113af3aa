"""Losses: alignment of query, title, image and product (ITC, QMA), and graded matching (QMF)."""

import torch
import torch.nn.functional as F
from torch import Tensor

# How much each grade's border counts: exact against the rest, near and better against the rest, anything against none.
BORDER_WEIGHTS = {3: 1.0, 2: 0.5, 1: 0.25}


def info_nce(left: Tensor, right: Tensor, scale: Tensor, false_negatives: Tensor, used: Tensor) -> Tensor:
    """Symmetric InfoNCE (van den Oord 2018): row i of left belongs to row i of right.

    left, right: [batch, width], unit rows. scale: scalar, the inverse temperature. false_negatives: [batch, batch]
    bool; such a pair leaves both denominators. used: [batch] bool; rows of which one side is missing count nowhere.
    Returns a scalar.
    """
    itself = torch.eye(len(left), dtype=torch.bool, device=left.device)
    absent = (false_negatives & ~itself) | (~used.unsqueeze(0) & ~itself) | (~used.unsqueeze(1) & ~itself)
    logits = (scale * left @ right.T).masked_fill(absent, -torch.inf)
    target = torch.arange(len(left), device=left.device)
    loss = F.cross_entropy(logits, target, reduction="none") + F.cross_entropy(logits.T, target, reduction="none")
    return (loss * used).sum() / (2 * used.sum().clamp(min=1))


def graded_matching(cosines: Tensor, grades: Tensor, scale: Tensor, used: Tensor) -> Tensor:
    """Each product must beat, for its query, the products of every lower grade.

    cosines: [queries, products]. grades: [queries, products] int, 0 to 3, -1 where unknown: such pairs count nowhere.
    scale: scalar. used: [products] bool. For each border g, a product at or above it stands against all products
    below it: log(1 + sum exp(scale * (below - above))). Returns a scalar.
    """
    logits = scale * cosines
    known = (grades >= 0) & used.unsqueeze(0)
    total, weight = logits.sum() * 0, 0.0
    for border, border_weight in BORDER_WEIGHTS.items():
        above, below = known & (grades >= border), known & (grades < border)
        rivals = torch.logsumexp(logits.masked_fill(~below, -1e4), dim=1, keepdim=True)
        losses = F.softplus(rivals - logits) * above
        has_both = above.any(dim=1) & below.any(dim=1)
        per_query = losses.sum(dim=1) / above.sum(dim=1).clamp(min=1)
        total = total + border_weight * (per_query * has_both).sum() / has_both.sum().clamp(min=1)
        weight += border_weight
    return total / weight


def similarity_distillation_loss(trained: Tensor, wanted: Tensor, group: int, scale: float = 20.0) -> Tensor:
    """How far the trained text tower's similarities of general texts stray from wanted ones.

    trained: [texts, width], unit rows; each run of group texts is about one thing. wanted: [texts, texts].
    Compares each text's distribution of similarity to the others (relational distillation, Park 2019), and the
    similarities themselves, within groups as much as between them. Returns a scalar.
    """
    number = torch.arange(len(trained), device=trained.device)
    itself = number.unsqueeze(0) == number.unsqueeze(1)
    together = (number.unsqueeze(0) // group == number.unsqueeze(1) // group) & ~itself
    similarities = trained @ trained.T
    softly = F.kl_div(
        F.log_softmax((scale * similarities).masked_fill(itself, -1e4), dim=1),
        F.softmax((scale * wanted).masked_fill(itself, -1e4), dim=1),
        reduction="batchmean",
    )
    squared = (similarities - wanted) ** 2
    return softly + 10 * (squared[together].mean() + squared[~together & ~itself].mean())
