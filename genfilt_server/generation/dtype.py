"""The number format in which a CPU computes the generator fastest.

Without bfloat16 instructions a CPU widens every weight to float32 before it multiplies, token by token. How slow that
is depends on the instruction set: docs/measurements/genfilt-instruction-sets.md has the figures.
"""

from collections.abc import Mapping
from typing import Any

DTYPES = ("auto", "bfloat16", "float16", "float32")
# Names of torch.cpu.get_capabilities(): bfloat16 products of AVX-512, of AMX, and of 64-bit Arm.
BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


def fastest_dtype(capabilities: Mapping[str, Any]) -> str:
    """Return "bfloat16" where the CPU multiplies bfloat16 in hardware, else "float32".

    capabilities: what torch.cpu.get_capabilities() returns, feature name to bool (other values are ignored).
    """
    has_bfloat16 = any(capabilities.get(name) is True for name in BFLOAT16_INSTRUCTIONS)
    return "bfloat16" if has_bfloat16 else "float32"
