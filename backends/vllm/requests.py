"""What the scheduler's batch says of the requests in it."""

from typing import Any

from backends.vllm.composition import KEY
from backends.vllm.rows import Member

CONTEXT = "num_context"


class Requests:
    """The requests of a model runner, by their place in the batch; None where it is not known.

    A request says which leading tokens of its prompt are computed densely in the `extra_args` of
    its sampling parameters, under the project's name; without that, all of the prompt.
    """

    def __init__(self, runner: Any) -> None:
        """Look at this runner's batch."""
        self._runner = runner

    def member(self, slot: int, stored: int, new: int, prefilling: bool) -> Member:
        """The rows of the request in this place."""
        if self._runner is None:
            # Rows of a prompt are all of the context, others are all of the answer.
            end = stored + new if prefilling else 0
            return Member(stored, new, end, end)
        batch = self._runner.input_batch
        num_prompt = int(batch.num_prompt_tokens[slot])
        params = self._runner.requests[batch.req_ids[slot]].sampling_params
        extra = (getattr(params, "extra_args", None) or {}).get(KEY, {})
        return Member(stored, new, min(extra.get(CONTEXT, num_prompt), num_prompt), num_prompt)
