"""Log-probabilities of prompt tokens: from the logits of the rows before them, chunk by chunk."""

from collections.abc import Sequence

import torch
from torch import Tensor

from backends.base import TokenScore
from backends.scheduler import Piece


class PromptScores:
    """What is known of the scored tokens of requests that run or have just ended."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._known: dict[str, list[TokenScore]] = {}
        self._complete: dict[str, tuple[TokenScore, ...]] = {}

    def add(self, pieces: Sequence[Piece], logits_RV: Tensor) -> None:
        """Take the logits of the rows of `scoring_rows`, piece after piece."""
        ids = [token for piece in pieces for token in _tokens(piece)]
        if not ids:
            return
        scores = iter(token_scores(logits_RV, ids))
        for piece in pieces:
            request = piece.running.request
            new = [next(scores) for _ in _tokens(piece)]
            known = self._known.setdefault(request.uid, []) if new else []
            known += new
            if new and len(known) == len(request.scored_ids):
                self._complete[request.uid] = tuple(self._known.pop(request.uid))

    def forget(self, uid: str) -> None:
        """The request ended without an answer."""
        self._known.pop(uid, None)
        self._complete.pop(uid, None)

    def take(self) -> dict[str, tuple[TokenScore, ...]]:
        """See Backend.take_scores."""
        complete, self._complete = self._complete, {}
        return complete


def scoring_rows(piece: Piece) -> range:
    """Rows of a piece, counted from its first, whose next token is scored."""
    first = piece.running.stored
    begins = max(piece.running.request.first_scoring_row - first, 0)
    return range(begins if piece.running.request.scored_ids else piece.count, piece.count)


def token_scores(logits_RV: Tensor, ids: Sequence[int]) -> list[TokenScore]:
    """The score of one given token a row, worked out in float32."""
    ids_R = torch.tensor(ids, dtype=torch.int64, device=logits_RV.device)
    # Not logits less their logsumexp: of likely tokens the difference would round to 1e-6.
    log_RV = logits_RV.float().log_softmax(dim=1)
    log_R = log_RV.gather(1, ids_R.unsqueeze(1)).squeeze(1)
    greedy_R = logits_RV.argmax(dim=1) == ids_R
    pairs = zip(log_R.tolist(), greedy_R.tolist(), strict=True)
    return [TokenScore(log, greedy) for log, greedy in pairs]


def _tokens(piece: Piece) -> Sequence[int]:
    request, rows = piece.running.request, scoring_rows(piece)
    begins = piece.running.stored + rows.start - request.first_scoring_row
    return request.scored_ids[begins : begins + len(rows)]
