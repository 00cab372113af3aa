"""The text tower: one BERT-like encoder for queries and titles."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from querylife.contract import TokenRole
from querylife.model.encoders import load_encoder
from querylife.preprocessing.text import Prefixes


@dataclass(frozen=True)
class TextTowerConfig:
    """encoder: a source that querylife.model.encoders knows. max_tokens: special tokens included.

    pooling: "mean" or "cls", of a text encoder that is served as it is. query_prefix, title_prefix: what it wants
    before each text.
    """

    encoder: str = "minilm-l6"
    embedding_width: int = 256
    max_tokens: int = 64
    pooling: str = "mean"
    query_prefix: str = ""
    title_prefix: str = ""

    @property
    def prefixes(self) -> Prefixes:
        return Prefixes(self.query_prefix, self.title_prefix)


class TextTower(nn.Module):
    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = load_encoder(config.encoder, unused=("pooler",))
        self.width: int = self.encoder.config.hidden_size
        self._has_types = getattr(self.encoder.config, "type_vocab_size", 0) >= 2
        head = nn.Linear(self.width, config.embedding_width, bias=False)
        nn.init.orthogonal_(head.weight)
        self.head: nn.Module = head

    def forward(self, token_ids: Tensor, token_roles: Tensor) -> tuple[Tensor, Tensor]:
        """Encode texts, each with its product type where that is known.

        token_ids: [batch, length] int32. token_roles: [batch, length] int32, contract.TokenRole.
        Returns states [batch, length, width] float32, and embedding [batch, embedding_width] float32, unit rows;
        zeros where a row holds neither text nor product type.
        """
        attended = (token_roles != TokenRole.PADDING).to(torch.int64)
        types = {"token_type_ids": (token_roles == TokenRole.PRODUCT_TYPE).to(torch.int64)} if self._has_types else {}
        states = self.encoder(input_ids=token_ids.to(torch.int64), attention_mask=attended, **types).last_hidden_state
        pooled = states[:, 0] if self.config.pooling == "cls" else masked_mean(states, attended)
        embedding = F.normalize(self.head(pooled), dim=-1)
        has_content = (token_roles > TokenRole.SPECIAL).any(dim=1, keepdim=True)
        return states, embedding * has_content.to(embedding.dtype)


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean of the states where mask is 1, zeros where it is 1 nowhere.

    states: [batch, length, width]. mask: [batch, length], 0 or 1. Returns [batch, width].
    """
    weights = mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
