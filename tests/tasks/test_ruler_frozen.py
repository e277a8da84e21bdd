"""The prompts of the bundled model's RULER do not change by accident."""

import hashlib
import json

import pytest

from tests.tasks.ruler_settings import settings

FROZEN = ("uid", "task", "context", "question", "references", "max_new_tokens", "metadata")


def digest(requests):
    asked = [[getattr(request, key) for key in FROZEN] for request in requests]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


@pytest.mark.parametrize(
    ("config", "changes", "sha256"),
    [
        ("ruler", {}, "91c4a9407bb46e5ba8225201dd727a2bbf52a44e21a316e2dd362ad8e76eea2f"),
        (
            "ruler",
            {"length": 1024, "seed": 7, "vt_example": True, "haystack": "default"},
            "c156ac0f9ab27c5aad150a2115f551605857a8966ced0326ada9236f5d73a087",
        ),
        (
            "ruler",
            {"length": 1024, "haystack": "prose", "values": "uuids"},
            "b966b0d66ffb6577680ae757ba74d3ee98f97962664f3673c870ee02f71033ef",
        ),
        (
            "ruler_original",
            {"num_samples": 6},
            "536b7f11155f1188a48f57733d22daed7d13bfd5a7f77b7184c9cff53eed28fd",
        ),
    ],
)
def test_the_same_seed_asks_what_it_always_asked(tokenizer, config, changes, sha256):
    assert digest(settings(config, **changes).requests(tokenizer)) == sha256
