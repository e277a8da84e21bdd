"""Composing configs outside of a command line's own: for studies of several systems."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.exits import one_line
from harness.settings import Settings, validated

CONF = Path(__file__).resolve().parent.parent / "conf"


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """What a command line with these overrides would compose, as plain values."""
    if GlobalHydra.instance().is_initialized():
        config = compose("run", list(overrides))
    else:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("run", list(overrides))
    return resolved(config)


def resolved(config: DictConfig) -> dict[str, Any]:
    """Our part of a config as plain values; raises OmegaConf's errors for what is missing."""
    # Hydra's own part has values that are known to its jobs alone.
    ours = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    plain = OmegaConf.to_container(ours, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def settings_from(overrides: Sequence[str]) -> Settings:
    """What `harness/run.py` would run with these words; raises ValueError of one line."""
    try:
        return validated(composed(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(one_line(error)) from None


def options(group: str) -> list[str]:
    """Names of the choices of a group, sorted."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))
