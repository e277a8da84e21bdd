"""The options of a comparison: `conf/compare.yaml`, and over it `key=value` words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.comparing.rule import LEAST_ROUNDS, Rule
from harness.paired_scores import ScoreRule

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = ROOT / "conf" / "compare.yaml"
GIT = "git:"
# Words that OmegaConf must not read: overrides hold brackets and equal signs of their own.
RUN = "run="
Share = Annotated[float, Field(ge=0, lt=1)]


class Options(BaseModel):
    """See `conf/compare.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str | None
    candidate: str | None
    run: tuple[str, ...]
    arm: str | None
    out: str | None
    baselines: str
    strict: bool
    gated: tuple[str, ...] = Field(min_length=1)
    shown: tuple[str, ...]
    alpha: float = Field(gt=0, lt=0.5)
    floor: Share
    noise_factor: float = Field(ge=0)
    rounds: int = Field(ge=LEAST_ROUNDS)
    warmup_rounds: int = Field(ge=1)
    confirm: bool
    timeout_s: float = Field(gt=0)
    accuracy_margin: Share
    task_margin: Share
    counter_tolerance: Share

    @property
    def rule(self) -> Rule:
        """The rule for latencies."""
        return Rule(
            alpha=self.alpha,
            floor=self.floor,
            noise_factor=self.noise_factor,
            rounds=self.rounds,
            confirm=self.confirm,
        )

    @property
    def score_rule(self) -> ScoreRule:
        """The rule for scores."""
        return ScoreRule(
            alpha=self.alpha, margin=self.accuracy_margin, task_margin=self.task_margin
        )

    @property
    def rule_facts(self) -> dict[str, float | int | bool]:
        """Every number that decides."""
        names = ("accuracy_margin", "task_margin", "counter_tolerance", "strict")
        return {**vars(self.rule), **{name: getattr(self, name) for name in names}}

    @property
    def runs_git(self) -> bool:
        """Whether both sides are run here, in turns."""
        return any(
            side is not None and side.startswith(GIT) for side in (self.base, self.candidate)
        )


def parse(words: Sequence[str]) -> Options:
    """The options; raises ValueError of one line. What follows `--` are overrides of the run."""
    words = list(words)
    after = words[words.index("--") + 1 :] if "--" in words else []
    words = words[: words.index("--")] if "--" in words else words
    for word in words:
        if "=" not in word:
            raise ValueError(f"{word!r}: options are key=value; see --help")
    overrides = [one for word in words if word.startswith(RUN) for one in listed(word[len(RUN) :])]
    given = [word for word in words if not word.startswith(RUN)]
    try:
        chosen = OmegaConf.merge(OmegaConf.load(DEFAULTS), OmegaConf.from_dotlist(given))
        values = OmegaConf.to_container(chosen)
        assert isinstance(values, dict)
        return Options.model_validate({**values, "run": [*overrides, *after]})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{key}={first['input']!r}: {first['msg']}") from None
    except OmegaConfBaseException as error:
        raise ValueError(str(error).splitlines()[0]) from None


def listed(text: str) -> list[str]:
    """The parts of `[a=1,b=[2,3]]` or of `a=1`, split at the commas that are in no bracket."""
    inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    parts, depth = [""], 0
    for letter in inside:
        depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]
