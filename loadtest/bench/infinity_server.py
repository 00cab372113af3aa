"""infinity's own server, in the environment that requirements/bench-infinity.lock makes.

    .venv-infinity/bin/python -m loadtest.bench.infinity_server PORT FOLDER torch|optimum

Prints "ready" and serves FOLDER, which tower.py wrote, at POST /embeddings.
"""

import logging
import os
import sys
import warnings

from torch.onnx._internal.torchscript_exporter import symbolic_opset14

# optimum 1.27 takes names from here, for an exporter that is not used, which torch 2.13 keeps elsewhere.
sys.modules["torch.onnx.symbolic_opset14"] = symbolic_opset14


def main(port: int, folder: str, engine: str) -> None:
    # ONNX Runtime 1.32 runs the graph that optimum's optimiser writes a tenth slower than the graph that it gets.
    os.environ |= {"INFINITY_ONNX_DISABLE_OPTIMIZE": "1", "INFINITY_HOME": folder, "HF_HOME": folder}
    os.environ |= {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    os.chdir(folder)  # infinity hands the graph on with its folder, and optimum takes a bare name only
    from infinity_emb.args import EngineArgs  # noqa: PLC0415
    from infinity_emb.infinity_server import create_server  # noqa: PLC0415
    from infinity_emb.primitives import Device, Dtype, InferenceEngine, PoolingMethod  # noqa: PLC0415

    from loadtest.bench.uvicorn_ready import serve  # noqa: PLC0415  # what follows reads the environment when it is imported

    logging.getLogger().setLevel(logging.WARNING)
    warnings.simplefilter("ignore")  # of what is deprecated in its parts
    options = EngineArgs(
        model_name_or_path=".",
        served_model_name="text",
        engine=InferenceEngine[engine],
        device=Device.cpu,
        dtype=Dtype.float32,
        pooling_method=PoolingMethod.mean,
        model_warmup=False,  # the bench warms up, with queries and not with 32 texts of 512 tokens
    )
    serve(create_server(engine_args_list=[options]), port)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:4])
