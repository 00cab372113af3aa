"""Reference outputs: the answers of the PyTorch model, which exports and engines are compared with."""

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from querylife.contract import FUSION_TOWER, QUERY_TOWER, TEXT_TOWER, VISION_TOWER, Model
from querylife.model.query_life import QueryLife
from querylife.model.text_tower import TextTower
from querylife_build.parity.sample import Sample

Array = NDArray[Any]


@dataclass(frozen=True)
class ReferenceOutputs:
    """outputs: tower -> its outputs for the sample's products, of a query tower for its queries.

    query: [queries, width], the text tower's embeddings of the sample's queries.
    """

    sample: Sample
    outputs: dict[Model, list[Array]]
    query: Array

    def inputs(self, tower: Model) -> list[Array]:
        """A tower's inputs in the contract's order; the fusion tower's come from the other eager towers."""
        sample = self.sample
        token_ids, token_roles = sample.token_ids.numpy(), sample.token_roles.numpy()
        pixels, image_used = sample.pixels.numpy(), sample.image_used.numpy()
        if tower is TEXT_TOWER:
            return [token_ids, token_roles]
        if tower is QUERY_TOWER:
            return [sample.query_token_ids.numpy(), sample.query_token_roles.numpy()]
        if tower is VISION_TOWER:
            return [pixels, image_used]
        text_states, text_embedding = self.outputs[TEXT_TOWER]
        patch_states, image_embedding = self.outputs[VISION_TOWER]
        return [text_states, token_roles, text_embedding, patch_states, image_embedding, image_used]


def tower_modules(model: QueryLife, query_tower: TextTower | None = None) -> dict[Model, nn.Module]:
    """The contract's towers and the modules that compute them."""
    modules: dict[Model, nn.Module] = {TEXT_TOWER: model.text, VISION_TOWER: model.vision, FUSION_TOWER: model.fusion}
    return modules | ({QUERY_TOWER: query_tower} if query_tower else {})


def compute_reference(model: QueryLife, sample: Sample, query_tower: TextTower | None = None) -> ReferenceOutputs:
    """Run the three towers in float32 on the sample's products, and the text tower and a query tower on its queries."""
    with torch.no_grad():
        states, text = model.text(sample.token_ids, sample.token_roles)
        patches, image = model.vision(sample.pixels, sample.image_used)
        product = model.fusion(states, sample.token_roles, text, patches, image, sample.image_used)
        query = model.embed_query(sample.query_token_ids, sample.query_token_roles)
        asked = query_tower(sample.query_token_ids, sample.query_token_roles) if query_tower else ()
    outputs = {TEXT_TOWER: [states, text], VISION_TOWER: [patches, image], FUSION_TOWER: [product]}
    if query_tower:
        outputs[QUERY_TOWER] = list(asked)
    return ReferenceOutputs(
        sample=sample,
        outputs={tower: [tensor.numpy() for tensor in tensors] for tower, tensors in outputs.items()},
        query=query.numpy(),
    )
