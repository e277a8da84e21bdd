"""lm-eval's own runs of small tasks on the bundled model, to compare ours with."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.tasks.lm_eval_samples import KINDS, write_tasks

ROOT = Path(__file__).parents[2]
BUNDLED = str(ROOT / "models" / "bundled")
RULER = ("niah_single_1", "ruler_vt")
NAMES = (*RULER, *KINDS)
NUM_SAMPLES = 3
LENGTH = 1024
SHORT = 128
TOLERANCE = 1e-3

needs_lm_eval = pytest.mark.skipif(
    find_spec("lm_eval") is None or find_spec("accelerate") is None,
    reason="lm-eval and its `hf` model (accelerate) are not installed: pip install 'kvloom[eval]'",
)


def evaluated(model, folders, names=NAMES, **options):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    metadata = {"max_seq_lengths": [LENGTH], "tokenizer": BUNDLED}
    manager = TaskManager(include_path=folders, include_defaults=False, metadata=metadata)
    return simple_evaluate(
        model=model,
        tasks=list(names),
        task_manager=manager,
        limit=NUM_SAMPLES,
        bootstrap_iters=0,
        **options,
    )


def hf(folders, names=NAMES, options=None, **arguments):
    arguments = {"pretrained": BUNDLED, "dtype": "float32", "device": "cpu"} | arguments
    return evaluated("hf", folders, names, model_args=arguments, **(options or {}))


def numbers(results, name):
    return {
        key: float(value)
        for key, value in results["results"][name].items()
        if "," in key and not isinstance(value, str)
    }


def said(sample):
    """What a model said of each request of a document."""
    return [response for responses in sample["resps"] for response in responses]


def task_folders(folder):
    """lm-eval's own RULER, and tasks of ours."""
    own = write_tasks(folder / "tasks")
    lm_eval = Path(find_spec("lm_eval").submodule_search_locations[0])
    return [str(lm_eval / "tasks" / "ruler"), str(own)]
