"""The check of a processor that the towers were not gated on: their answers at the gate, asked for once more.

Int8 products may go through other kernels there, which round and saturate otherwise. The canary alone does not tell: it
compares with the eager model, whose answers int8 towers are further from than from their own.
"""

import logging

import grpc

from querylife.artifacts.processor import instruction_sets
from querylife.artifacts.repository_lock import EngineLock
from querylife.errors import ServerFaultError
from querylife.serving.config import ServerConfig
from querylife.serving.supervisor.auth import Access
from querylife.serving.supervisor.golden_probe import CanaryCaller

log = logging.getLogger(__name__)

TIMEOUT_S = 60.0


def check_processor(config: ServerConfig, lock: EngineLock, access: Access) -> str:
    """Ask a ready server for the gate's answers, where this processor is not the gate's.

    Returns "" when the answers agree or nothing is to be checked, else what is wrong. The GPU profile's towers do not
    depend on the processor.
    """
    canary = lock.gate_canary()
    here = instruction_sets()
    if canary is None or lock.gate is None or config.profile == "gpu" or here == lock.gate.instruction_sets:
        return ""
    gated = ", ".join(lock.gate.instruction_sets) or "an unknown processor"
    log.info("the towers were gated on %s, this processor has %s: checking their answers", gated, ", ".join(here))
    caller = CanaryCaller(config.address, canary, access)
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
