"""Bytes of real tensors, to hold against what tables say of themselves."""

from torch import Tensor


def tensors_of(thing) -> list[Tensor]:
    """Every tensor that an object of ours keeps, through its parts."""
    if isinstance(thing, Tensor):
        return [thing]
    if isinstance(thing, list):
        return [one for part in thing for one in tensors_of(part)]
    ours = type(thing).__module__.startswith("memory_tiers.tables")
    return tensors_of(list(vars(thing).values())) if ours and hasattr(thing, "__dict__") else []


def real_bytes(thing, *constants: str) -> int:
    """Bytes of the storage behind the tensors of an object, without its constants."""
    names = [name for name in vars(thing) if name not in constants]
    found = [one for name in names for one in tensors_of(getattr(thing, name))]
    return sum({one.data_ptr(): one.untyped_storage().nbytes() for one in found}.values())
