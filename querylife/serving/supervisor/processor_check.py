"""Checks the towers on a processor that they were not gated on, with the inputs and answers of the gate.

Int8 products may use other kernels there, which round and saturate differently. The golden probe is not enough: it
compares with the PyTorch model, whose answers are further from int8 towers than those of the gate.
"""

import importlib.util
import logging

import grpc

from querylife.artifacts.processor import FAST_BF16, instruction_sets
from querylife.artifacts.repository_lock import EngineLock
from querylife.errors import ArtifactError, ServerFaultError
from querylife.serving.backend.openvino_session import NO_OPENVINO
from querylife.serving.config import ServerConfig
from querylife.serving.supervisor.auth import Access
from querylife.serving.supervisor.golden_probe import ProbeCaller

log = logging.getLogger(__name__)

TIMEOUT_S = 60.0


def check_precision(lock: EngineLock) -> None:
    """Before towers start on CPU: refuse bf16 without OpenVINO (ArtifactError), and say where another one pays."""
    is_fast = FAST_BF16 in instruction_sets()
    precisions = {tower.precision for tower in lock.towers.values()}
    if precisions == {"fp32"} and is_fast:
        log.info("this processor has %s: towers built with --precision bf16 are about twice as fast here", FAST_BF16)
    if "bf16" not in precisions:
        return
    if importlib.util.find_spec("openvino") is None:
        raise ArtifactError(NO_OPENVINO)
    if not is_fast:
        log.warning("found a processor without %s: bf16 towers run in float32 here", FAST_BF16)


def check_processor(config: ServerConfig, lock: EngineLock, access: Access) -> str:
    """Ask a ready server for the gate's answers, where this processor is not the gate's.

    Returns "" when the answers agree or nothing is to be checked, else what is wrong. The GPU profile's towers do not
    depend on the processor.
    """
    golden_probe = lock.gate_probe()
    here = instruction_sets()
    if golden_probe is None or lock.gate is None or config.profile == "gpu" or here == lock.gate.instruction_sets:
        return ""
    gated = ", ".join(lock.gate.instruction_sets) or "an unknown processor"
    log.info("the towers were gated on %s, this processor has %s: checking their answers", gated, ", ".join(here))
    caller = ProbeCaller(config.address, golden_probe, access)
    try:
        caller.call_all(TIMEOUT_S)
    except ServerFaultError as error:
        return f"the towers answer otherwise than on the processor they were gated on ({gated}): {error}"
    except grpc.RpcError as error:
        return f"the check of this processor was not answered: {error}"
    finally:
        caller.close()
    log.info("the towers answer as on the processor they were gated on")
    return ""
