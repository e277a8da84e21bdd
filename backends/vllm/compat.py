"""Every name of vLLM that this project uses; nothing else imports vLLM."""

import sys
from collections.abc import Sequence
from typing import Any

from backends.vllm.versions import installed_version, refusal_of

if (_reason := refusal_of(installed_version())) is not None:
    raise ValueError(_reason)

from vllm import SamplingParams
from vllm.config import KVTransferConfig, get_current_vllm_config_or_none
from vllm.engine.arg_utils import EngineArgs
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.attention.backend import (
    AttentionBackend,
    AttentionImpl,
    AttentionMetadataBuilder,
    CommonAttentionMetadata,
    MultipleOf,
)
from vllm.v1.attention.backends.registry import (
    AttentionBackendEnum,
    register_backend,
)
from vllm.v1.engine.llm_engine import LLMEngine
from vllm.v1.kv_cache_interface import KVCacheLayout

__all__ = [
    "AttentionBackend",
    "AttentionBackendEnum",
    "AttentionImpl",
    "AttentionMetadataBuilder",
    "CommonAttentionMetadata",
    "EngineArgs",
    "KVCacheLayout",
    "KVTransferConfig",
    "LLMEngine",
    "MultipleOf",
    "RequestOutputKind",
    "SamplingParams",
    "command_line",
    "create_config",
    "current_platform",
    "get_current_vllm_config_or_none",
    "register_backend",
    "serve_arguments",
    "stock_cpu_backend",
    "stock_offloading_spec",
    "stock_offloading_worker",
    "stock_worker",
    "transfer_result",
]


def stock_cpu_backend() -> Any:
    """The attention backend that ours stands in for on CPUs; its module is there on CPUs only."""
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    return CPUAttentionBackend


def stock_worker() -> Any:
    """The worker that vLLM itself takes on this platform."""
    if current_platform.is_cpu():
        from vllm.v1.worker.cpu_worker import CPUWorker

        return CPUWorker
    from vllm.v1.worker.gpu_worker import Worker

    return Worker


def stock_offloading_spec() -> Any:
    """What keeps blocks of vLLM's cache in host memory, with a worker for GPUs alone."""
    from vllm.v1.kv_offload.cpu.spec import CPUOffloadingSpec

    return CPUOffloadingSpec


def stock_offloading_worker() -> Any:
    """The contract of who copies such blocks."""
    from vllm.v1.kv_offload.base import OffloadingWorker

    return OffloadingWorker


def transfer_result(job: int, num_bytes: int, seconds: float) -> Any:
    """A transfer of blocks that is done."""
    from vllm.v1.kv_offload.base import TransferResult

    return TransferResult(job, success=True, transfer_size=num_bytes, transfer_time=seconds)


def serve_arguments(words: Sequence[str]) -> Any:
    """The arguments of the engine that `vllm WORDS` would start; loads vLLM's plug-ins."""
    from vllm.entrypoints.cli.serve import cmd_init
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    commands = parser.add_subparsers(dest="subparser")
    for one in cmd_init():
        one.subparser_init(commands)
    asked = parser.parse_args(list(words))
    if asked.model_tag is not None:
        asked.model = asked.model_tag
    return EngineArgs.from_cli_args(asked)


def create_config(arguments: Any) -> Any:
    """The config of the engine that would start; raises ValueError where vLLM refuses."""
    return arguments.create_engine_config()


def command_line(words: Sequence[str]) -> None:
    """Do what `vllm WORDS` does."""
    from vllm.entrypoints.cli.main import main

    sys.argv = ["vllm", *words]
    main()
