"""Linear heads that name a product's attributes from its picture's embedding: extra targets while the tower is trained.

They hold the embedding to what a shopper asks for (type, colour, gender, use), also where a batch has no query for it.
They are no part of the checkpoint.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHARPNESS = 16.0  # unit embeddings are multiplied by it, so that logits can get large
SMOOTHING = 0.05  # of the labels: some are wrong
UNKNOWN = -1


class AttributeHeads(nn.Module):
    """One head per attribute. classes: how many values each attribute has."""

    def __init__(self, width: int, classes: Mapping[str, int]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(width, count) for name, count in sorted(classes.items())})

    def loss(self, image: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
        """Mean cross-entropy over the attributes, a scalar.

        image: [batch, width], unit rows, zeros where a picture is missing. labels: [batch] int64 each, UNKNOWN where
        an attribute is not known.
        """
        shown = image.detach().abs().sum(dim=1) > 0
        losses = []
        for name, head in self.heads.items():
            target = torch.where(shown, labels[name], UNKNOWN)
            total = F.cross_entropy(
                head(SHARPNESS * image), target, ignore_index=UNKNOWN, label_smoothing=SMOOTHING, reduction="sum"
            )
            losses.append(total / (target != UNKNOWN).sum().clamp(min=1))
        return torch.stack(losses).mean()
