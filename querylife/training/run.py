"""A training run: its configuration, and the state that resumes it (parameters, optimizer, step, log)."""

import csv
import dataclasses
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from querylife.errors import ConfigError, InputFileError
from querylife.model.devices import DEVICES, device_of
from querylife.model.embed import model_tokenizer
from querylife.model.encoders import encoder_layers
from querylife.model.query_life import QueryLife
from querylife.training.attribute_heads import AttributeHeads
from querylife.training.false_negatives import NAMES as FILTERS

if TYPE_CHECKING:
    from querylife.training.early_stopping import EarlyStopping

log = logging.getLogger(__name__)

MAY_CHANGE = {"cache", "data", "threads", "out", "gate_steps", "gate_rate"}  # in a run that goes on
Value = TypeVar("Value")

SCALE_LIMIT = 50.0  # of the losses' inverse temperatures


def option(default: Value, text: str) -> Value:
    """A field with the text that --help shows for it."""
    value: Value = field(default=default, metadata={"help": text})
    return value


@dataclass(frozen=True)
class TrainingConfig:
    """One option of `querylife train` for each field. Raises ConfigError for values that cannot be used."""

    data: str = option("../shared/data", "folder of the shared fashion data; unused with --pairs")
    catalog: str = option("", "your own catalogue: a file or folder")
    pairs: str = option("", "your own judgements: a file with query, product_id and grade")
    cache: str = option("out/features", "folder where image features are kept; unused with --augment")
    out: str = option("out/querylife-mini", "folder of the checkpoint, training.pt and log.csv")
    name: str = option("querylife-mini", "the model's name in the checkpoint")
    steps: int = option(1500, "optimizer steps")
    batch: int = option(96, "queries in one step, over all processes")
    seed: int = option(0, "of everything random")
    device: str = option("cpu", f"{' or '.join(DEVICES)}; under torchrun each process takes a GPU of its own")
    start: str = option("", "checkpoint folder to start from; empty: the pretrained encoders")
    text_encoder: str = option("minilm-l6", "to start from without --start: a folder of save_pretrained, or a hub id")
    vision_encoder: str = option("dinov2-s14", "the same for pictures; of CLIP and SigLIP the vision half")
    image_size: int = option(112, "side of the vision encoder's square input, px")
    threads: int = option(2, "processor threads of each process")
    bfloat16: bool = option(True, "compute in bfloat16 where autocast allows")
    text_layers: int = option(5, "trained last layers of the text encoder, 0 to 6")
    text_rate: float = option(8e-5, "peak learning rate of the text encoder's layers")
    vision_layers: int = option(6, "trained last layers of the vision encoder, 0 to 12")
    augment: bool = option(True, "crop, mirror and brighten pictures anew in each step, instead of cached features")
    vision_rate: float = option(1e-4, "peak learning rate of the vision encoder's layers")
    head_rate: float = option(1e-3, "peak learning rate of heads, colour stem, fusion tower and loss scales")
    warmup: int = option(100, "steps of linear warm-up, before cosine decay")
    weight_decay: float = option(0.01, "AdamW's weight decay, per step and unit of learning rate")
    clip: float = option(1.0, "largest norm of the gradient")
    filter: str = option("duplicates", f"which false negatives leave the loss: {', '.join(FILTERS)}")
    ledger: str = option("", "verdicts of `querylife-jobs filter`, for --filter genfilt")
    modalities: str = option("both", "what products show: both, title or image")
    fusion_mode: str = option("gated", "gated, or mean: the mean of title and image, without attention")
    product_type: bool = option(True, "let the model read product types")
    qmf: float = option(1.0, "weight of graded matching on the fused vector")
    qma: float = option(0.2, "weight of InfoNCE of the query with title, image and product")
    qma_graded: float = option(0.5, "weight of graded matching on title and image alone")
    attributes: float = option(0.3, "weight of naming type, colour, gender and use from the picture; 0: not at all")
    exact_colour: bool = option(True, "grade another shade of the asked colour as a wrong colour")
    itc: float = option(0.1, "weight of InfoNCE of title with image")
    distill_weight: float = option(1.0, "weight of the distillation on general texts; 0: none")
    general: str = option("", "table of query and title from elsewhere; empty: Home Depot's, beside the shared data")
    distill_texts: int = option(64, "general texts in one step")
    products: int = option(0, "use the first N products only; 0: all")
    save_every: int = option(100, "steps between checkpoints of the run")
    patience: int = option(
        0,
        "stop after so many evaluations without a better nDCG@10 on held-out queries, with the best weights; 0: never",
    )
    evaluate_every: int = option(100, "steps between such evaluations")
    gate_split: bool = option(True, "fit the gate on products and phrases that take no part in the steps")
    gate_steps: int = option(300, "optimizer steps of the gate's fit; 0: leave the gate as trained")
    gate_rate: float = option(3e-4, "learning rate of the gate's fit")

    def __post_init__(self) -> None:
        if self.filter not in FILTERS:
            raise ConfigError(f'filter: found "{self.filter}", want one of {", ".join(FILTERS)}')
        if self.device not in DEVICES:
            raise ConfigError(f'device: found "{self.device}", want {" or ".join(DEVICES)}')
        if self.modalities not in ("both", "title", "image"):
            raise ConfigError(f'modalities: found "{self.modalities}", want both, title or image')
        if self.batch < 2 or self.steps < 1:
            raise ConfigError(f"found batch {self.batch} and steps {self.steps}, want at least 2 and 1")
        if self.patience < 0 or self.evaluate_every < 1:
            found = f"found patience {self.patience} and evaluate_every {self.evaluate_every}"
            raise ConfigError(f"{found}, want at least 0 and 1")


class LossParameters(nn.Module):
    """What the losses learn for themselves, and the tokenizer they read with.

    classes: how many values each attribute has that a head is to name.
    """

    def __init__(self, model: QueryLife, classes: Mapping[str, int]) -> None:
        super().__init__()
        self.log_contrastive = nn.Parameter(torch.tensor(math.log(20.0)))
        self.log_graded = nn.Parameter(torch.tensor(math.log(20.0)))
        self.attribute_heads = AttributeHeads(model.config.vision.embedding_width, classes)
        self.tokenizer = model_tokenizer(model)

    def contrastive(self) -> Tensor:
        return self.log_contrastive.exp()

    def graded(self) -> Tensor:
        return self.log_graded.exp()

    def limit(self) -> None:
        with torch.no_grad():
            for value in (self.log_contrastive, self.log_graded):
                value.clamp_(max=math.log(SCALE_LIMIT))


class Run:
    """What a run needs to go on: trained parameters, optimizer, step. Written to out/training.pt."""

    def __init__(
        self,
        config: TrainingConfig,
        model: QueryLife,
        classes: Mapping[str, int],
        stopping: "EarlyStopping | None" = None,
    ) -> None:
        """model: on the device where it trains. classes: of the attributes in a batch's labels, of which heads are
        trained where config wants them."""
        self.config, self.model, self.step, self.stopping = config, model, 0, stopping
        model.eval()  # no dropout: a step is a function of seed and step alone
        self.named = choose_parameters(model, config.text_layers)
        self.parameters = list(self.named.values())
        self.losses = LossParameters(model, classes if config.attributes > 0 else {}).to(device_of(model))
        text, vision, heads = (
            [value for name, value in self.named.items() if _part(name) == part] for part in ("text", "vision", "heads")
        )
        self.optimizer = torch.optim.AdamW(
            [
                {"params": text, "peak": config.text_rate},
                {"params": vision, "peak": config.vision_rate},
                {"params": heads, "peak": config.head_rate},
                {"params": list(self.losses.parameters()), "peak": config.head_rate, "weight_decay": 0.0},
            ],
            weight_decay=config.weight_decay,
        )
        self._path = Path(config.out) / "training.pt"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            self._load()

    def is_over(self) -> bool:
        stopped = self.stopping is not None and self.stopping.is_over(self.step)
        return stopped or self.step >= self.config.steps

    def save(self) -> None:
        state = {
            "step": self.step,
            "config": dataclasses.asdict(self.config),
            "named": {name: value.detach() for name, value in self.named.items()},
            "losses": self.losses.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stopping": self.stopping.state() if self.stopping else None,
        }
        unfinished = self._path.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.rename(self._path)

    def _load(self) -> None:
        state = torch.load(self._path, weights_only=True, map_location=device_of(self.model))
        mine, other = dataclasses.asdict(self.config), state["config"]
        differing = [name for name in mine if name not in MAY_CHANGE and mine[name] != other.get(name)]
        if differing:
            raise InputFileError(f"{self._path}: was run with another {', '.join(differing)}; want a new --out")
        with torch.no_grad():
            for name, value in self.named.items():
                value.copy_(state["named"][name])
        self.losses.load_state_dict(state["losses"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        if self.stopping:
            self.stopping.load(state["stopping"])
        log.info("going on after step %d", self.step)

    def report(self, parts: dict[str, float], rate: float) -> None:
        left = (self.config.steps - self.step) / rate
        words = " ".join(f"{name} {value:.3f}" for name, value in parts.items())
        log.info(
            "step %d/%d %s, %.0f pairs/s, %.0f s left",
            self.step,
            self.config.steps,
            words,
            rate * self.config.batch,
            left,
        )
        row = {"step": self.step, "pairs_per_s": round(rate * self.config.batch, 1), "left_s": round(left)} | parts
        path = self._path.with_name("log.csv")
        is_new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if is_new:
                writer.writeheader()
            writer.writerow(row)


def choose_parameters(model: QueryLife, text_layers: int) -> dict[str, nn.Parameter]:
    """Freeze both encoders but for their last layers (of vision as its config says); everything else is trained."""
    for name, value in model.named_parameters():
        value.requires_grad_(_part(name) == "heads")
    layers = encoder_layers(model.text.encoder)
    for layer in layers[len(layers) - text_layers :]:
        layer.requires_grad_(True)
    for value in model.vision.tuned_parameters():
        value.requires_grad_(True)
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def _part(name: str) -> str:
    """Of a parameter: "text" or "vision", the encoders, or "heads", all that we added."""
    return name.partition(".")[0] if ".encoder." in name else "heads"


def set_rates(optimizer: torch.optim.Optimizer, step: int, *, warmup: int, steps: int) -> None:
    """Linear warm-up, then a cosine down to nothing, of each group's peak."""
    warm = min(1.0, (step + 1) / warmup)
    share = warm * 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
