"""vLLM behind the pipeline's Generator: the only module that imports it.

The engine runs in this process's event loop with its core in a process of its own. Of the arrangements that vLLM 0.32
supports this is the fastest on two cores (an HTTP server between would cost about a tenth), a cancelled task frees its
slot by itself, and the OpenAI-compatible routes can be served from the same engine.
"""

import asyncio
import logging
import os
import uuid
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from genfilt_server import trace
from genfilt_server.auth import GuardedApp, Token
from genfilt_server.config import ServerConfig
from genfilt_server.generation.default_generator import Source
from genfilt_server.generation.pipeline import Generated, GenerationError, Usage
from genfilt_server.generation.prompts import schema_pattern
from genfilt_server.generation.vllm_options import engine_options, environment
from querylife.errors import UnavailableError
from querylife.logs import kept_logging
from querylife.preprocessing.image import decode

log = logging.getLogger(__name__)

MAX_DESCRIPTION_TOKENS = 192  # more than the characters of the schema's longest description
IMAGE_SIZE = 448  # side of the square that a vision-language model is shown, in pixels
OFFLINE_OPTIONS = ("model", "dtype", "max_model_len", "max_num_seqs", "enforce_eager", "block_size")

IS_CPU = torch.version.cuda is None and torch.version.hip is None  # vLLM's build goes with torch's
for _name, _value in environment(is_cpu=IS_CPU).items():  # read by vLLM when it is imported
    os.environ.setdefault(_name, _value)

from PIL import Image  # noqa: E402
from vllm import SamplingParams  # noqa: E402
from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs  # noqa: E402
from vllm.entrypoints.launchers.cli_args import make_arg_parser  # noqa: E402
from vllm.exceptions import VLLMClientError  # noqa: E402
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams  # noqa: E402
from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: E402
from vllm.v1.engine.async_llm import AsyncLLM  # noqa: E402
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError  # noqa: E402


def engine_arguments(config: ServerConfig, source: Source) -> Namespace:
    """vLLM's own arguments for this server; what the user passed on comes last and wins."""
    options = engine_options(config, source.path, source.name, is_cpu=IS_CPU, capabilities=torch.cpu.get_capabilities())
    parser = make_arg_parser(FlexibleArgumentParser())
    arguments: Namespace = parser.parse_args(options)
    return arguments


def description_sampling() -> SamplingParams:
    """Greedy decoding that the schema holds, with the log-probability of what was chosen."""
    return SamplingParams(
        temperature=0,
        max_tokens=MAX_DESCRIPTION_TOKENS,
        logprobs=0,
        structured_outputs=StructuredOutputsParams(regex=schema_pattern()),
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _generated(output: Any) -> Generated:
    answer = output.outputs[0]
    used = Usage(len(output.prompt_token_ids or ()), output.num_cached_tokens or 0, len(answer.token_ids))
    return Generated(answer.text, (answer.cumulative_logprob or 0.0) / max(1, len(answer.token_ids)), used)


class VllmGenerator:
    """Implements Generator. Close it: the engine's core is a process."""

    def __init__(self, arguments: Namespace) -> None:
        self.arguments = arguments
        self.engine = AsyncLLM.from_engine_args(AsyncEngineArgs.from_cli_args(arguments))
        self.reads_images = bool(self.engine.model_config.is_multimodal_model)
        self._sampling, self._traces = description_sampling(), arguments.otlp_traces_endpoint is not None
        self._image_template: str | None = None

    @property
    def is_dead(self) -> bool:
        return bool(self.engine.errored)

    async def generate(self, prompt: str, image: bytes | None) -> Generated:
        """One description, greedily decoded. Cancelling this frees the engine's slot."""
        try:
            given, name = await self._input(prompt, image), uuid.uuid4().hex
            headers = trace.headers() if self._traces else None
            outputs = self.engine.generate(given, self._sampling, name, trace_headers=headers)
            output = [output async for output in outputs][-1]
        except EngineDeadError as error:
            raise UnavailableError("the engine has died; the server is going down") from error
        except (VLLMClientError, EngineGenerateError, ValueError) as error:
            raise GenerationError(f"the engine says: {error}") from error
        return _generated(output)

    async def _input(self, prompt: str, image: bytes | None) -> Any:
        if image is None:
            return {"prompt": prompt}
        planes = await asyncio.to_thread(decode, image, IMAGE_SIZE)  # [3, size, size] uint8
        picture = Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))
        return {"prompt": self._with_image(prompt), "multi_modal_data": {"image": picture}}

    def _with_image(self, prompt: str) -> str:
        """The prompt as a user's message beside a picture, in the model's own chat template."""
        if self._image_template is None:
            content = [{"type": "image"}, {"type": "text", "text": "{prompt}"}]
            messages = [{"role": "user", "content": content}]
            tokenizer = self.engine.get_tokenizer()
            self._image_template = str(
                tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            )
        return self._image_template.replace("{prompt}", prompt)

    async def openai_app(self, token: Token) -> GuardedApp:
        """vLLM's OpenAI-compatible routes over this engine, behind the token."""
        from vllm.entrypoints.openai.api_server import build_app, init_app_state  # noqa: PLC0415  # slow, optional

        tasks = await self.engine.get_supported_tasks()
        with kept_logging():
            app = build_app(self.arguments, tasks, self.engine.model_config)
            await init_app_state(self.engine, app.state, self.arguments, tasks)
        return GuardedApp(app, token)

    def close(self, timeout_s: float) -> None:
        self.engine.shutdown(timeout=timeout_s)


class OfflineGenerator:
    """vLLM's own batch mode with the same engine options, to measure the server by. Close it."""

    def __init__(self, arguments: Namespace) -> None:
        from vllm import LLM  # noqa: PLC0415  # for measurements only

        options = vars(EngineArgs.from_cli_args(arguments))
        self._llm = LLM(**{name: options[name] for name in OFFLINE_OPTIONS}, disable_log_stats=True)
        self._sampling = description_sampling()

    def describe(self, prompts: Sequence[str]) -> list[Generated]:
        outputs = self._llm.generate([{"prompt": prompt} for prompt in prompts], self._sampling, use_tqdm=False)
        return [_generated(output) for output in outputs]

    def close(self) -> None:
        self._llm.llm_engine.engine_core.shutdown()
