"""On an NVIDIA GPU the towers answer as the eager model does on the CPU, in every precision."""

from collections.abc import Iterator

import pytest
import torch

from querylife.contract import TOWERS
from querylife.model.query_life import QueryLife
from querylife_build.parity.backends import torch_backend
from querylife_build.parity.gate import check_parity
from querylife_build.parity.reference import ReferenceOutputs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="found no NVIDIA GPU with a CUDA build of torch"),
]


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """TF32 has 10 bits of mantissa; the fp32 tolerance is for 23."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_towers_on_a_gpu_agree_with_the_eager_model(
    precision: str, model: QueryLife, reference: ReferenceOutputs
) -> None:
    """test_parity.py compares the same runner on the CPU."""
    assert set(check_parity(reference, torch_backend(model, precision, "cuda"), precision)) == set(TOWERS)
