"""One level of the hierarchy: a tier, which pages are in it, and which of them changed there."""

from dataclasses import dataclass

import torch
from torch import Tensor

from memory_tiers.base import NOWHERE, EvictionPolicy, FrameTable
from memory_tiers.page_table import PageTable
from memory_tiers.tiers.base import Tier


@dataclass(frozen=True)
class Move:
    """Contents of frames `from_N` of one level, these pages, to frames `to_N` of another."""

    source: "Level"
    from_N: Tensor
    target: "Level"
    to_N: Tensor
    pages_N: Tensor


class Level:
    """Frames by page and pages by frame, kept in step; moves no content.

    A changed page is newer here than on every level below; the last level has no policy.
    """

    def __init__(
        self,
        tier: Tier,
        table: FrameTable,
        policy: EvictionPolicy | None,
        pages: PageTable | None = None,
    ) -> None:
        """Take hold of an empty tier; the table's device is where its frames are looked up.

        pages: given, the level knows whose pages it holds: owner_F, and held_B by sequence slot.
        """
        self.tier = tier
        self.table = table
        self.policy = policy
        device = table.device
        self.page_of_F = torch.full((tier.num_frames,), NOWHERE, device=device)
        self.changed_F = torch.zeros(tier.num_frames, dtype=torch.bool, device=device)
        self._none_F1 = torch.zeros(tier.num_frames + 1, dtype=torch.bool, device=device)
        self._pages = pages
        self.owner_F = torch.zeros_like(self.page_of_F)
        self.held_B = torch.zeros(pages.num_sequences if pages else 0, dtype=torch.int64)
        if policy is not None:
            policy.start(tier.num_frames, device)

    @property
    def name(self) -> str:
        """Name of the tier."""
        return self.tier.name

    @property
    def num_free(self) -> int:
        """Frames that hold nothing."""
        return self.tier.num_free

    def frames(self, pages_N: Tensor) -> Tensor:
        """Frame of each page, NOWHERE where it is not on this level."""
        return self.table.frames(pages_N)

    def place(self, pages_N: Tensor) -> Tensor:
        """Give frames to pages that are not here; the frames."""
        frames_N = self.tier.allocate(pages_N.numel())
        self.table.place(pages_N, frames_N)
        self.page_of_F[frames_N] = pages_N
        if self._pages is not None:
            self.owner_F[frames_N] = owner_N = self._pages.sequences_of(pages_N)
            self.held_B += torch.bincount(owner_N, minlength=len(self.held_B))
        return frames_N

    def drop(self, pages_N: Tensor) -> None:
        """Take back the frames of pages that are here."""
        if pages_N.numel() == 0:
            return
        frames_N = self.frames(pages_N)
        if self._pages is not None:
            self.held_B -= torch.bincount(self.owner_F[frames_N], minlength=len(self.held_B))
        self.table.remove(pages_N)
        self.page_of_F[frames_N] = NOWHERE
        self.changed_F[frames_N] = False
        if self.policy is not None:
            self.policy.forget(frames_N)
        self.tier.free(frames_N)

    def touch(self, frames_N: Tensor, pages_N: Tensor) -> None:
        """Tell the policy that these were filled or read."""
        if self.policy is not None:
            self.policy.touch(frames_N, pages_N)

    def changed(self, pages_N: Tensor) -> Tensor:
        """Those of these pages, all here, that are newer here than below."""
        return pages_N[self.changed_F[self.frames(pages_N)]]

    def victims(self, count: int, pinned_N: Tensor) -> Tensor:
        """Pages that may go, at most `count`, worst first; frames `pinned_N` may not."""
        return self.page_of_F[self.rank(count, self.mask(pinned_N))]

    def rank(self, count: int, barred_F: Tensor) -> Tensor:
        """Frames that may go, at most `count`, worst first; none of those barred."""
        if self.policy is None or count <= 0:
            return self.page_of_F[:0]
        return self.policy.victims(count, barred_F)

    def mask(self, frames_N: Tensor) -> Tensor:
        """Which frames these are, bool [F]; an entry NOWHERE is none."""
        # NOWHERE is -1, the place behind the last frame.
        marked_F1 = self._none_F1.clone()
        marked_F1[frames_N] = True
        return marked_F1[:-1]
