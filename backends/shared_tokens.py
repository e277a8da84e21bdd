"""Which sequences have a context that is asked again, for what forms partitions of it in bulk."""

from backends.batch import Batch


class SharedTokens:
    """Leading tokens that later requests share, by slot; none for most sequences."""

    def __init__(self) -> None:
        """No context is asked again."""
        self._shared: dict[int, int] = {}

    def note(self, batch: Batch) -> None:
        """Hear of a chunk, or of decode rows."""
        if batch.shared:
            self._shared[batch.slots[0]] = batch.shared

    def at_most(self, slot: int, num_tokens: int) -> int:
        """So many tokens, or fewer where later requests share fewer."""
        return min(num_tokens, self._shared.get(slot, num_tokens))

    def forget(self, slot: int) -> None:
        """A sequence is gone."""
        self._shared.pop(slot, None)
