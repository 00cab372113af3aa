"""What a training run is made of and needs to go on after a kill: configuration, parameters, optimizer, step, log."""

import csv
import dataclasses
import logging
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from querylife.errors import ConfigError, InputFileError
from querylife.model.embed import model_tokenizer
from querylife.model.encoders import encoder_layers
from querylife.model.query_life import QueryLife
from querylife.training.false_negatives import NAMES as FILTERS

log = logging.getLogger(__name__)

MAY_CHANGE = {"cache", "data", "threads", "out", "gate_steps", "gate_rate"}  # in a run that goes on
SCALE_LIMIT = 50.0  # of the losses' inverse temperatures


@dataclass(frozen=True)
class TrainingConfig:
    data: str = "../shared/data"
    catalog: str = ""
    pairs: str = ""
    cache: str = "out/features"
    out: str = "out/querylife-mini"
    name: str = "querylife-mini"
    steps: int = 1500
    batch: int = 96
    seed: int = 0
    start: str = ""
    threads: int = 2
    bfloat16: bool = True
    text_layers: int = 5
    text_rate: float = 8e-5
    vision_layers: int = 2
    vision_rate: float = 1e-4
    head_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    filter: str = "duplicates"
    ledger: str = ""
    modalities: str = "both"
    mix: str = "gated"
    product_type: bool = True
    qmf: float = 1.0
    qma: float = 0.2
    qma_graded: float = 0.5
    itc: float = 0.1
    keep: float = 1.0
    general: str = ""
    keep_texts: int = 64
    products: int = 0
    save_every: int = 100
    hold_back: bool = True
    gate_steps: int = 300
    gate_rate: float = 3e-4

    def __post_init__(self) -> None:
        if self.filter not in FILTERS:
            raise ConfigError(f'filter: found "{self.filter}", want one of {", ".join(FILTERS)}')
        if self.modalities not in ("both", "title", "image"):
            raise ConfigError(f'modalities: found "{self.modalities}", want both, title or image')
        if self.batch < 2 or self.steps < 1:
            raise ConfigError(f"found batch {self.batch} and steps {self.steps}, want at least 2 and 1")


class LossScales(nn.Module):
    """What the losses learn for themselves, and the tokenizer they read with."""

    def __init__(self, model: QueryLife) -> None:
        super().__init__()
        self.log_contrastive = nn.Parameter(torch.tensor(math.log(20.0)))
        self.log_graded = nn.Parameter(torch.tensor(math.log(20.0)))
        self.tokenizer = model_tokenizer(model)

    def contrastive(self) -> Tensor:
        return self.log_contrastive.exp()

    def graded(self) -> Tensor:
        return self.log_graded.exp()

    def limit(self) -> None:
        with torch.no_grad():
            for value in self.parameters():
                value.clamp_(max=math.log(SCALE_LIMIT))


class Run:
    """What a run needs to go on: trained parameters, optimizer, step. Written to out/training.pt."""

    def __init__(self, config: TrainingConfig, model: QueryLife) -> None:
        self.config, self.model, self.step = config, model, 0
        model.eval()  # no dropout: a step is a function of seed and step alone
        self.named = choose_parameters(model, config.text_layers)
        self.parameters = list(self.named.values())
        self.losses = LossScales(model)
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

    def save(self) -> None:
        state = {
            "step": self.step,
            "config": dataclasses.asdict(self.config),
            "named": {name: value.detach() for name, value in self.named.items()},
            "losses": self.losses.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        unfinished = self._path.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.rename(self._path)

    def _load(self) -> None:
        state = torch.load(self._path, weights_only=True)
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


def set_rates(run: Run, config: TrainingConfig) -> None:
    """Linear warm-up, then a cosine down to nothing."""
    warm = min(1.0, (run.step + 1) / config.warmup)
    share = warm * 0.5 * (1 + math.cos(math.pi * run.step / config.steps))
    for group in run.optimizer.param_groups:
        group["lr"] = group["peak"] * share
