"""Descriptions by vLLM's own batch mode, for research.generator.throughput: `python -m research.generator.offline`.

Reads JSON lists of titles, one a line, and answers each with a line of JSON: the seconds that vLLM took, the tokens
that it wrote, and its answers.
"""

import argparse
import json
import os
import sys
import time

from genfilt_server.config import ServerConfig
from genfilt_server.generation.default_generator import generator_source
from genfilt_server.generation.engine import OfflineGenerator, engine_arguments


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Describe titles in vLLM's batch mode.")
    parser.add_argument("--model", default=ServerConfig.model, help="smollm2-135m, a folder or a hub id")
    parser.add_argument("--dtype", default=ServerConfig.dtype, help="as genfilt-server takes it")
    options = parser.parse_args(arguments)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")  # vLLM's processes write to stdout, too
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    source = generator_source(options.model)
    generator = OfflineGenerator(engine_arguments(ServerConfig(model=options.model, dtype=options.dtype), source))
    try:
        for line in sys.stdin:
            prompts = [source.prompt.of_title(title) for title in json.loads(line)]
            started = time.monotonic()
            described = generator.describe(prompts)
            seconds = time.monotonic() - started
            tokens = sum(each.usage.completion_tokens for each in described)
            texts = [json.loads(each.text) for each in described]
            print(json.dumps({"seconds": seconds, "tokens": tokens, "answers": texts}), file=answers, flush=True)
    finally:
        generator.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
