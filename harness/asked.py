"""What settings ask for, said without building anything of it."""

from pathlib import Path

from backends.weights import weights_sha256
from harness.record import Budget
from harness.settings import LocalModel, Settings

ROOT = Path(__file__).resolve().parent.parent


def model_path(model: LocalModel) -> str:
    """A folder, looked for in the repository too, or a hub id."""
    here = Path(model.path)
    return str(ROOT / here) if not here.exists() and (ROOT / here).exists() else model.path


def model_sha256(settings: Settings) -> str | None:
    """Of the weights; None of random ones and of those that are not in a folder."""
    model = settings.model
    return weights_sha256(model_path(model)) if isinstance(model, LocalModel) else None


def requested_budget(settings: Settings) -> Budget:
    """What the algorithm is allowed to read."""
    amount = settings.algo.budget
    return Budget(tokens=amount) if isinstance(amount, int) else Budget(fraction=amount)
