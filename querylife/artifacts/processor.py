"""Which instruction sets of this processor change how int8 and half-precision products are computed."""

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
FAST_BF16 = "amx_bf16"  # multiplies bfloat16 several times as fast as float32; avx512_bf16 does not
# Each one selects other kernels in ONNX Runtime. In Linux' spelling.
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def instruction_sets(cpuinfo: Path = CPUINFO) -> tuple[str, ...]:
    """Those of INSTRUCTION_SETS that every core has; none where Linux does not tell."""
    try:
        lines = [
            line.partition(":")[2].split() for line in cpuinfo.read_text().splitlines() if line.startswith("flags")
        ]
    except OSError:
        return ()
    return tuple(name for name in INSTRUCTION_SETS if lines and all(name in flags for flags in lines))
