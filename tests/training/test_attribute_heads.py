"""Heads that name attributes from a picture's embedding count known attributes of shown pictures, and nothing else."""

import torch
import torch.nn.functional as F

from querylife.training.attribute_heads import AttributeHeads

CLASSES = {"product_type": 3, "colour": 2}


def heads() -> AttributeHeads:
    torch.manual_seed(0)
    return AttributeHeads(8, CLASSES)


def test_missing_pictures_and_unknown_attributes_count_nowhere() -> None:
    module, image = heads(), F.normalize(torch.randn(4, 8), dim=-1)
    image[3] = 0
    labels = {"product_type": torch.tensor([0, 1, -1, 2]), "colour": torch.tensor([1, -1, -1, 0])}
    changed = {"product_type": torch.tensor([0, 1, -1, 0]), "colour": torch.tensor([1, -1, -1, 1])}
    torch.testing.assert_close(module.loss(image, labels), module.loss(image, changed))
    other = image.clone()
    other[2] = -other[2]
    torch.testing.assert_close(module.loss(image, labels), module.loss(other, labels))
    assert module.loss(image, labels) != module.loss(image, labels | {"colour": torch.tensor([0, -1, -1, 0])})


def test_nothing_known_is_no_loss() -> None:
    unknown = {name: torch.full((2,), -1) for name in CLASSES}
    assert heads().loss(F.normalize(torch.randn(2, 8), dim=-1), unknown) == 0


def test_training_moves_embeddings_towards_their_attributes() -> None:
    module, free = heads(), torch.randn(30, 8, requires_grad=True)
    labels = {"product_type": torch.arange(30) % 3, "colour": torch.arange(30) % 2}
    optimizer = torch.optim.Adam([free, *module.parameters()], 0.05)
    for _ in range(100):
        optimizer.zero_grad()
        module.loss(F.normalize(free, dim=-1), labels).backward()
        optimizer.step()
    vectors = F.normalize(free.detach(), dim=-1)
    alike = vectors @ vectors.T
    same = labels["product_type"][:, None] == labels["product_type"]
    assert alike[same].mean() > alike[~same].mean() + 0.3
