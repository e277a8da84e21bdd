"""Settings from overrides alone, for commands beside the harness's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.settings import Settings, validated

CONF = Path(__file__).resolve().parent.parent / "conf"


def settings_from(overrides: Sequence[str]) -> Settings:
    """What `harness/run.py` with these words would run; raises ValueError of one line."""
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("run", list(overrides))
            raw: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(str(error).splitlines()[0]) from None
    return validated(raw)
