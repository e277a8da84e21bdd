"""A composed system as a model of lm-eval: by the name `kvloom`, or as an object."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from backends.base import Request
from harness.encoding import cut_at, encode, encode_scored, ends_at, prefix_id
from harness.evaluator import library
from harness.evaluator.library import UnusableError
from harness.evaluator.system import AnsweringSystem
from harness.tasks.chat import conversation

NAME = "kvloom"
# The default of lm-eval's `hf` model.
MOST_NEW_TOKENS = 256
QUESTION_TOKENS = 64
# Arguments that lm-eval hands to every model; our engine batches by backend.max_batch.
UNUSED = frozenset({"batch_size", "max_batch_size", "trust_remote_code"})
SERVED = frozenset({"until", "max_gen_toks", "do_sample", "temperature"})

Pair = tuple[Any, list[int], list[int]]


class Speaker:
    """What lm-eval asks of a model; `model_class` joins it with lm-eval's own template.

    Arguments are Hydra overrides (`algo="quest"`, `{"algo.retrieve.budget_tokens": 256}`), and:
    pretrained, a folder or hub id; device, `cpu` or what is there; max_length, of context and
    answer; add_bos_token; question_tokens, the last ones of a context that go through the
    algorithm.
    """

    def __init__(
        self,
        *,
        pretrained: str | None = None,
        device: str | None = None,
        max_length: int | None = None,
        add_bos_token: bool | None = None,
        question_tokens: int = QUESTION_TOKENS,
        **overrides: Any,
    ) -> None:
        """Compose and load; raises UnusableError of one line."""
        super().__init__()
        chosen = {name: value for name, value in overrides.items() if name not in UNUSED}
        chosen = {"load": "batch"} | chosen
        if pretrained is not None:
            chosen |= {"model": "hf", "model.path": pretrained}
        # Its command line says `cuda` on any machine, and its `hf` model then takes what is there.
        if device == "cpu":
            chosen |= {"backend.device": device}
        try:
            self.system = AnsweringSystem(as_overrides(chosen), question_tokens)
        except ValueError as error:
            raise UnusableError(str(error)) from None
        self.tokenizer = self.system.tokenizer
        self.max_length = max_length or self.system.info.max_tokens
        self._add_bos = add_bos_token

    @property
    def eot_token_id(self) -> Any:
        """The token that ends a text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """The token that stands before a text without a context."""
        return prefix_id(self.tokenizer)

    @property
    def tokenizer_name(self) -> str:
        """A name for caches of requests."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Ids of a text; special tokens as they are asked for, else as the `hf` model has them."""
        if add_special_tokens is not None:
            return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))
        return encode(self.tokenizer, string, add_bos=self._add_bos)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as the tokenizer's own template writes it."""
        return conversation(
            self.tokenizer, chat_history, add_generation_prompt=add_generation_prompt
        )

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Of each continuation after its context: the sum of log-probabilities, and if greedy."""
        pairs = [
            (one.args, *encode_scored(self.tokenizer, *one.args[:2], add_bos=self._add_bos))
            for one in requests
        ]
        return self._loglikelihood_tokens(pairs)

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Of each text: the sum of log-probabilities, in windows where it is too long."""
        cuts = [
            library.windows(self.tok_encode(one.args[0]), self.prefix_token_id, self.max_length)
            for one in requests
        ]
        scored = iter(self._loglikelihood_tokens([(None, *pair) for cut in cuts for pair in cut]))
        return [sum(next(scored)[0] for _ in cut) for cut in cuts]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers, cut before the first stop string; long contexts lose their beginning."""
        wanted = [library.generation(one.args[1], MOST_NEW_TOKENS) for one in requests]
        asked = [
            self._generation(str(number), one.args[0], options)
            for number, (one, options) in enumerate(zip(requests, wanted, strict=True))
        ]
        return [
            cut_at(
                self.tokenizer.decode(heard.token_ids, skip_special_tokens=True), options["until"]
            )
            for heard, options in zip(self.system.answer(asked), wanted, strict=True)
        ]

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes beside its results."""
        settings = self.system.settings
        return {
            "model_num_parameters": self.system.num_parameters,
            "model_dtype": str(self.system.dtype),
            "algo": settings.algo.model_dump(mode="json", by_alias=True),
            "tier": settings.tier.name,
            "protocol": settings.protocol.name,
        }

    def _loglikelihood_tokens(self, requests: Sequence[Pair], **_: Any) -> list[tuple[float, bool]]:
        asked = [
            self._scoring(str(number), context_ids, continuation_ids)
            for number, (_, context_ids, continuation_ids) in enumerate(requests)
        ]
        answers = self.system.answer(asked)
        return [
            (
                sum(one.log_probability for one in heard.scores),
                all(one.is_greedy for one in heard.scores),
            )
            for heard in answers
        ]

    def _generation(self, uid: str, context: str, options: Mapping[str, Any]) -> Request:
        most = options["max_gen_toks"]
        if most >= self.max_length:
            raise UnusableError(
                f"max_gen_toks={most} leaves no room for a context in max_length={self.max_length}"
            )
        sampled = bool(options["do_sample"])
        if sampled and (others := sorted(set(options) - SERVED)):
            raise UnusableError(f"sampling with {', '.join(others)} is not served; drop it")
        ids = encode(self.tokenizer, context, add_bos=self._add_bos)[-(self.max_length - most) :]
        return Request(
            uid=uid,
            prompt_ids=tuple(ids),
            num_context=self.system.num_context(len(ids)),
            max_new_tokens=most,
            stop_ids=self.system.stop_ids,
            temperature=float(options.get("temperature", 0.0)) if sampled else 0.0,
            seed=int(uid),
            ends=ends_at(self.tokenizer, options["until"]),
        )

    def _scoring(self, uid: str, context_ids: list[int], continuation_ids: list[int]) -> Request:
        num_scored = len(continuation_ids)
        assert 0 < num_scored <= self.max_length, num_scored
        ids = (context_ids + continuation_ids)[-(self.max_length + 1) :]
        return Request(
            uid=uid,
            prompt_ids=tuple(ids[:-1]),
            num_context=self.system.num_context(len(ids) - num_scored),
            max_new_tokens=1,
            stop_ids=frozenset(),
            scored_ids=tuple(ids[-num_scored:]),
        )


@cache
def model_class() -> Any:
    """The class that lm-eval knows as `kvloom`; raises UnusableError without lm-eval."""
    made = type("KVLoomModel", (Speaker, library.template()), {})
    library.register(NAME, made)
    return made


def as_overrides(chosen: Mapping[str, Any]) -> list[str]:
    """Hydra's words for values that lm-eval has parsed."""
    words = {True: "true", False: "false", None: "null"}
    return [
        f"{name}={words[value] if isinstance(value, bool | None) else value}"
        for name, value in chosen.items()
    ]
