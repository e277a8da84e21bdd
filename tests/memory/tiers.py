"""One tier of each kind, and pages to put there."""

import torch

from memory_tiers.base import KVGeometry
from memory_tiers.tiers.cpu import HostMemory
from memory_tiers.tiers.disk import Disk
from memory_tiers.tiers.disk_requests import PythonRequests
from memory_tiers.tiers.hbm import Hbm

NUM_FRAMES = 24
IMPLEMENTATIONS = ["compiled", "python"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def geometry(dtype=torch.float32, page_tokens=16, head_dim=32, device="cpu") -> KVGeometry:
    """By default a page has 4096 bytes, which is what direct requests take."""
    return KVGeometry(
        num_layers=1,
        num_kv_heads=1,
        head_dim=head_dim,
        page_tokens=page_tokens,
        dtype=dtype,
        device=torch.device(device),
    )


def make_disk(folder, shape=None, *, direct="auto", in_flight=4, python=False, frames=NUM_FRAMES):
    one = Disk(
        "disk", frames, shape or geometry(), path=str(folder), direct=direct, in_flight=in_flight
    )
    if python:
        one._requests = PythonRequests(one._file.fd, frames, one.frame_bytes, in_flight)
    return one


def make_tier(kind, folder, shape):
    """One of each kind; every choice of the disk is a kind of its own."""
    memory = {"hbm": Hbm, "cpu": HostMemory}
    if kind in memory:
        return memory[kind](kind, NUM_FRAMES, shape)
    _, mode, in_flight, implementation = kind.split()
    return make_disk(
        folder,
        shape,
        direct={"direct": "auto", "buffered": False}[mode],
        in_flight=int(in_flight),
        python=implementation == "python",
    )


KINDS = ["hbm", "cpu"] + [
    f"disk {mode} {in_flight} {implementation}"
    for mode in ("direct", "buffered")
    for in_flight in (1, 8)
    for implementation in IMPLEMENTATIONS
]


def pages(count: int, shape: KVGeometry, seed: int = 0) -> torch.Tensor:
    """Random bytes, NaN among them."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randint(0, 256, (count, shape.page_bytes), generator=generator, dtype=torch.uint8)
    return raw.view(shape.dtype).view(count, 2, shape.page_tokens, shape.head_dim)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(
        *(tensor.reshape(-1).view(torch.uint8) for tensor in (one, other))
    )
