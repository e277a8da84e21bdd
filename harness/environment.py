"""Where and how a run was measured; names of machines and their paths stay out."""

import hashlib
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from harness.schema import Part

ROOT = Path(__file__).parents[1]
PACKAGES = (
    *("kvloom", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy"),
    *("hydra-core", "omegaconf", "pydantic", "rich", "psutil", "wonderwords"),
    *("triton", "vllm", "lm-eval"),
)
# What the attention kernels choose their code by.
CPU_FLAGS = frozenset(
    "f16c fma avx2 avx512f avx512bw avx512vl avx512_bf16 avx512_fp16 avx512_vnni "
    "amx_tile amx_bf16 asimd asimdhp bf16 sve sve2".split()
)
VARIABLE_PREFIXES = ("OMP_", "KVLOOM_")
VARIABLES = frozenset({"HF_HUB_OFFLINE"})


class Git(Part):
    """The commit of the sources, and whether they differ from it."""

    sha: str
    dirty: bool


class Cpu(Part):
    """The processor; cores_usable: those that this process may run on."""

    model: str
    cores_physical: int | None
    cores_logical: int | None
    cores_usable: int | None
    flags: tuple[str, ...]


class Gpu(Part):
    """An accelerator that torch sees."""

    name: str
    mem_bytes: int


class Environment(Part):
    """The software and the machine; fingerprint: SHA-256 of the hardware alone."""

    git: Git | None
    python: str
    packages: dict[str, str | None]
    cuda: str | None
    cpu: Cpu
    ram_bytes: int
    gpus: tuple[Gpu, ...]
    kernel: str
    torch_threads: int
    variables: dict[str, str]
    fingerprint: str


class Measurement(Part):
    """How the numbers were taken.

    warmup: requests per arm before the ones that count; interleaving: how the arms take turns,
    such as `request`, `batch` or `none`; affinity: the cores this process was bound to.
    """

    clock: str = "time.perf_counter"
    percentile_method: str = "numpy linear"
    ddof: int = 0
    warmup: int
    interleaving: str
    torch_threads: int
    affinity: tuple[int, ...] | None
    omp_wait_policy: str | None


def measurement(*, warmup: int, interleaving: str) -> Measurement:
    """How this process measures, its threads read back."""
    import torch

    return Measurement(
        warmup=warmup,
        interleaving=interleaving,
        torch_threads=torch.get_num_threads(),
        affinity=usable_cores(),
        omp_wait_policy=os.environ.get("OMP_WAIT_POLICY"),
    )


def environment() -> Environment:
    """The environment of this process, as far as it can be seen."""
    # Here alone: who only reads records does not wait for torch.
    import torch

    processor, gpus = cpu(), visible_gpus()
    ram_bytes = psutil.virtual_memory().total
    return Environment(
        git=git_state(ROOT),
        python=platform.python_version(),
        packages={name: package_version(name) for name in PACKAGES},
        cuda=torch.version.cuda,
        cpu=processor,
        ram_bytes=ram_bytes,
        gpus=gpus,
        kernel=f"{platform.system()} {platform.release()}",
        torch_threads=torch.get_num_threads(),
        variables=listed_variables(),
        fingerprint=fingerprint(processor, ram_bytes, gpus),
    )


def git_state(root: Path) -> Git | None:
    """The state of the repository at `root`; None if there is no git, commit or repository."""
    top = git_output(root, "rev-parse", "--show-toplevel")
    # An installed package may lie inside somebody else's repository.
    if top is None or Path(top).resolve() != root.resolve():
        return None
    sha = git_output(root, "rev-parse", "HEAD")
    changes = git_output(root, "status", "--porcelain")
    if sha is None or changes is None:
        return None
    return Git(sha=sha, dirty=bool(changes))


def git_output(root: Path, *arguments: str) -> str | None:
    """What git prints; None if it is missing, slow or refuses."""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def package_version(name: str) -> str | None:
    """The installed version of a package; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def cpu() -> Cpu:
    """The processor of this machine."""
    described = processor_description(Path("/proc/cpuinfo"))
    flags = described.get("flags", described.get("Features", "")).split()
    usable = usable_cores()
    return Cpu(
        model=described.get("model name") or platform.processor() or platform.machine(),
        cores_physical=psutil.cpu_count(logical=False),
        cores_logical=psutil.cpu_count(),
        cores_usable=None if usable is None else len(usable),
        flags=tuple(sorted(CPU_FLAGS.intersection(flags))),
    )


def processor_description(path: Path) -> dict[str, str]:
    """What the kernel says of the first processor; empty where it says nothing."""
    if not path.exists():
        return {}
    lines = path.read_text().split("\n\n")[0].splitlines()
    fields = [line.partition(":") for line in lines]
    return {name.strip(): value.strip() for name, _, value in fields}


def usable_cores() -> tuple[int, ...] | None:
    """The cores that this process may run on; None where the system does not say."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    return tuple(sorted(os.sched_getaffinity(0)))


def visible_gpus() -> tuple[Gpu, ...]:
    """The CUDA devices of this process."""
    import torch

    if not torch.cuda.is_available():
        return ()
    devices = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return tuple(Gpu(name=device.name, mem_bytes=device.total_memory) for device in devices)


def listed_variables() -> dict[str, str]:
    """The environment variables that change a measurement; a path is not written out."""
    return {
        name: "<path>" if os.sep in value else value
        for name, value in sorted(os.environ.items())
        if name in VARIABLES or name.startswith(VARIABLE_PREFIXES)
    }


def fingerprint(processor: Cpu, ram_bytes: int, gpus: tuple[Gpu, ...]) -> str:
    """SHA-256 of the hardware; memory to the GiB, as kernels reserve varying amounts."""
    hardware = {
        "cpu": processor.model_dump(mode="json"),
        "ram_gib": round(ram_bytes / 2**30),
        "gpus": [gpu.model_dump(mode="json") for gpu in gpus],
    }
    return hashlib.sha256(json.dumps(hardware, sort_keys=True).encode()).hexdigest()
