"""Amounts as people write them: `64MiB`, `0.1` of something, or `auto`."""

import re
from typing import Literal

UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
Size = int | float | Literal["auto"]
Limit = int | float | None


def parse_size(value: object) -> Size:
    """Bytes as int, a share as float in (0, 1), or auto; raises ValueError that names what fits."""
    if value == "auto":
        return "auto"
    if isinstance(value, float) and 0.0 < value < 1.0:
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value) >= 1:
        return int(value)
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(B|KiB|MiB|GiB|TiB)", value)
        if match and (size := int(float(match[1]) * UNITS[match[2]])) > 0:
            return size
    raise ValueError("give bytes (64MiB), a share (0.1), or auto")


def parse_limit(value: object) -> Limit:
    """Bytes, a share, or None for no limit; raises ValueError that names what fits."""
    if value is None:
        return None
    try:
        size = parse_size(value)
    except ValueError:
        size = "auto"
    if size == "auto":
        raise ValueError("give bytes (8GiB), a share of the machine's memory (0.9), or null")
    return size


def format_size(num_bytes: int) -> str:
    """The shortest exact or rounded-up size that `parse_size` reads back as at least as many."""
    for unit in ("GiB", "MiB", "KiB"):
        if num_bytes >= 10 * UNITS[unit]:
            return f"{-(-num_bytes // UNITS[unit])}{unit}"
    return f"{num_bytes}B"
