"""What this processor is, and which instruction sets change how it computes int8 and half-precision products."""

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
FAST_BF16 = "amx_bf16"  # multiplies bfloat16 several times as fast as float32; avx512_bf16 does not
# Each one selects other kernels in ONNX Runtime. In Linux' spelling.
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")

# Lines of /proc/cpuinfo, on x86 and on ARM, that are the same for every processor of a kind.
IDENTITY = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
    *("CPU implementer", "CPU variant", "CPU part", "CPU revision", "Features"),
)


def instruction_sets(cpuinfo: Path = CPUINFO) -> tuple[str, ...]:
    """Those of INSTRUCTION_SETS that every core has; none where Linux does not tell."""
    try:
        lines = [
            line.partition(":")[2].split() for line in cpuinfo.read_text().splitlines() if line.startswith("flags")
        ]
    except OSError:
        return ()
    return tuple(name for name in INSTRUCTION_SETS if lines and all(name in flags for flags in lines))


def processor_description(cpuinfo: Path = CPUINFO) -> str:
    """All that tells one kind of processor from another; "" where Linux does not tell."""
    try:
        first = cpuinfo.read_text().partition("\n\n")[0]
    except OSError:
        return ""
    return "\n".join(line for line in first.splitlines() if line.partition(":")[0].strip() in IDENTITY)
