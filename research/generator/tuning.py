"""Tunes a small generator on described titles and queries: `python -m research.generator.tuning`.

Only low-rank deltas of the upper layers' matrices are learned, over the default generator's weights. What is written
is those deltas, a few megabytes of fp16 safetensors, which genfilt_server.generation.default_generator folds
into the weights again: "<matrix>.a" [rank, inputs] and "<matrix>.b" [outputs, rank]; matrix += b @ a.
"""

import argparse
import json
import logging
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from genfilt_server.generation.prompts import TUNED, Description, spell

log = logging.getLogger(__name__)

IGNORED = -100  # a label that carries no loss


class Delta(nn.Module):
    """A frozen linear layer plus a low-rank delta that starts at zero."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer
        self.a = nn.Parameter(torch.randn(rank, layer.in_features) / layer.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, states: Tensor) -> Tensor:
        delta = F.linear(F.linear(states, self.a.to(states.dtype)), self.b.to(states.dtype))
        return self.layer(states) + delta


def add_deltas(model: Any, layers: int, rank: int) -> dict[str, Delta]:
    """Put a Delta around every matrix of the last layers; returns them by the name of their weight."""
    model.requires_grad_(False)
    deltas: dict[str, Delta] = {}
    first = len(model.model.layers) - layers
    for number, block in enumerate(model.model.layers[first:], first):
        for part in (block.self_attn, block.mlp):
            for name, layer in list(part.named_children()):
                if isinstance(layer, nn.Linear):
                    delta = Delta(layer, rank)
                    setattr(part, name, delta)
                    owner = "self_attn" if part is block.self_attn else "mlp"
                    deltas[f"model.layers.{number}.{owner}.{name}.weight"] = delta
    return deltas


def tokenize(tokenizer: Any, example: dict[str, Any]) -> tuple[list[int], int]:
    """Token ids of prompt and answer, and how many of them belong to the prompt."""
    ask = TUNED.of_title if example["kind"] == "title" else TUNED.of_query
    prompt = tokenizer(ask(example["text"]), add_special_tokens=False).input_ids
    answer = tokenizer(spell(Description(**example["description"])), add_special_tokens=False).input_ids
    return [*prompt, *answer, tokenizer.eos_token_id], len(prompt)


def collate(rows: list[tuple[list[int], int]], padding: int) -> tuple[Tensor, Tensor, Tensor]:
    """[batch, tokens] int64 token ids, attention mask, and labels (IGNORED on the prompt and the padding)."""
    length = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), length), padding)
    labels = torch.full((len(rows), length), IGNORED)
    for row, (tokens, prompt) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, prompt : len(tokens)] = torch.tensor(tokens[prompt:])
    lengths = torch.tensor([len(tokens) for tokens, _ in rows])
    return ids, (torch.arange(length)[None] < lengths[:, None]).long(), labels


def loss_of(model: Any, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy of the answers' tokens; the vocabulary's matrix is applied to those positions only."""
    ids, mask, labels = batch
    states = model.model(
        input_ids=ids, attention_mask=mask, use_cache=False
    ).last_hidden_state  # [batch, tokens, width]
    answered = labels[:, 1:] != IGNORED
    logits = model.lm_head(states[:, :-1][answered])  # [answer tokens, vocabulary]
    return F.cross_entropy(logits.float(), labels[:, 1:][answered])


def save(deltas: dict[str, Delta], out: Path) -> None:
    tensors: dict[str, Tensor] = {}
    for name, delta in deltas.items():
        tensors[f"{name}.a"] = delta.a.detach().half().contiguous()
        tensors[f"{name}.b"] = delta.b.detach().half().contiguous()
    unfinished = out.with_suffix(".unfinished")
    save_file(tensors, str(unfinished))
    unfinished.replace(out)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Tune a small generator on described titles and queries.")
    parser.add_argument("model", help="the generator's folder, without deltas")
    parser.add_argument("examples", type=Path, help="JSON Lines from research.generator.examples")
    parser.add_argument("out", type=Path, help="safetensors file to write")
    parser.add_argument("--minutes", type=float, default=30.0, help="when to stop at the latest")
    parser.add_argument("--batch", type=int, default=24, help="examples per step")
    parser.add_argument("--layers", type=int, default=20, help="how many of the last layers learn")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    torch.manual_seed(options.seed)

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16)
    deltas = add_deltas(model, options.layers, options.rank)
    rows = [tokenize(tokenizer, json.loads(line)) for line in options.examples.read_text("utf-8").splitlines()]
    random.Random(options.seed).shuffle(rows)
    batches = [rows[start : start + options.batch] for start in range(0, len(rows), options.batch)]
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], options.learning_rate, weight_decay=0.0
    )

    started = time.monotonic()
    for step, batch in enumerate(batches):
        # The rate falls with the larger of the two shares used up, so that it ends near zero either way.
        used = max(step / len(batches), (time.monotonic() - started) / (60 * options.minutes))
        if used >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * min(1.0, (step + 1) / 10) * max(0.02, 1 - used)
        loss = loss_of(model, collate(batch, tokenizer.eos_token_id))
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            log.info("step %d of %d, loss %.4f, %.0f s", step, len(batches), loss.item(), time.monotonic() - started)
            save(deltas, options.out)
    save(deltas, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
