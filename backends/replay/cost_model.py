"""Simulated step times: bytes that a replay counted, over bandwidths that vendors publish.

Per layer, what attention reads over the bandwidth of HBM and what moved over that of the link, plus
a latency for each batch of transfers; then the rest of the model, which reads its weights once a
step or is bound by its arithmetic (SPIN, arXiv:2604.26837, section 3.1, whose equation is not
public; this is ours). Peak figures: a real machine is slower.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from backends.replay.traffic import LayerTraffic
from memory_tiers.trace import TraceHeader

GIGA, TERA, MICRO = 1e9, 1e12, 1e-6
DISK = "disk"


@dataclass(frozen=True, kw_only=True)
class HardwareProfile:
    """Published peaks of a machine; bandwidths in 10^9 bytes/s.

    link_gb_s: of the link between accelerator and host, per direction; disk_gb_s: sequential reads;
    transfer_us: latency of one batch of transfers, an assumption.
    """

    hbm_gb_s: float
    link_gb_s: float
    disk_gb_s: float
    bf16_tflops: float
    transfer_us: float

    def __post_init__(self) -> None:
        """Refuse what no machine has."""
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"hardware.profile.{name}={value} must be above 0")


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What the bytes of a model's decode step depend on."""

    name: str
    num_layers: int
    num_kv_heads: int
    head_dim: int
    bytes_per_value: int
    parameters: int

    @property
    def token_bytes(self) -> int:
        """Key and value of one token in one layer, all kv heads."""
        return 2 * self.num_kv_heads * self.head_dim * self.bytes_per_value


# From the configs and cards of the models on the Hugging Face hub, in bfloat16.
SHAPES: Mapping[str, ModelShape] = {
    shape.name: shape
    for shape in (
        ModelShape(
            name="llama-3.1-8b",
            num_layers=32,
            num_kv_heads=8,
            head_dim=128,
            bytes_per_value=2,
            parameters=8_030_000_000,
        ),
        ModelShape(
            name="qwen3-14b",
            num_layers=40,
            num_kv_heads=8,
            head_dim=128,
            bytes_per_value=2,
            parameters=14_800_000_000,
        ),
        ModelShape(
            name="qwen3-32b",
            num_layers=64,
            num_kv_heads=8,
            head_dim=128,
            bytes_per_value=2,
            parameters=32_800_000_000,
        ),
        ModelShape(
            name="llama-3.1-70b",
            num_layers=80,
            num_kv_heads=8,
            head_dim=128,
            bytes_per_value=2,
            parameters=70_600_000_000,
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class SimulatedStep:
    """Means over the decode steps, in milliseconds; every number is simulated.

    attention_ms: reading selected pages; transfer_ms: moving pages, if nothing hid it; rest_ms: the
    rest of the model; serial_ms: their sum; overlapped_ms: in each layer the longer of transfers
    and everything else.
    """

    attention_ms: float
    transfer_ms: float
    rest_ms: float
    serial_ms: float
    overlapped_ms: float


def shape_of(header: TraceHeader) -> ModelShape:
    """The model that a trace was recorded on."""
    return ModelShape(
        name=header.model,
        num_layers=header.num_layers,
        num_kv_heads=header.num_kv_heads,
        head_dim=header.head_dim,
        bytes_per_value=header.bytes_per_value,
        parameters=header.parameters,
    )


def simulated_step(
    layers: Sequence[LayerTraffic],
    profile: HardwareProfile,
    traced: ModelShape,
    target: ModelShape,
) -> SimulatedStep:
    """Mean step times of `target`, each of whose layers and kv heads does as the traced ones did.

    layers: traffic in the order of steps.
    """
    scale = target.token_bytes / traced.token_bytes
    steps = []
    for _, step_layers in groupby(layers, key=lambda one: one.step):
        own = list(step_layers)
        steps.append(_step(own, profile, target, scale, target.num_layers / len(own)))
    return SimulatedStep(
        **{
            name: 1e3 * fmean(step[name] for step in steps)
            for name in SimulatedStep.__dataclass_fields__
        }
    )


def _step(
    layers: Sequence[LayerTraffic],
    profile: HardwareProfile,
    target: ModelShape,
    scale: float,
    repeats: float,
) -> dict[str, float]:
    """Seconds of one step, by the names of SimulatedStep."""
    rest = _rest(layers[0].sequences, profile, target)
    own_rest = rest / target.num_layers
    attention = [scale * one.read / (profile.hbm_gb_s * GIGA) for one in layers]
    transfer = [_transfer(one, profile, scale) for one in layers]
    pairs = list(zip(attention, transfer, strict=True))
    return {
        "attention_ms": repeats * sum(attention),
        "transfer_ms": repeats * sum(transfer),
        "rest_ms": rest,
        "serial_ms": repeats * sum(map(sum, pairs)) + rest,
        "overlapped_ms": repeats * sum(max(read + own_rest, moved) for read, moved in pairs),
    }


def _rest(sequences: int, profile: HardwareProfile, target: ModelShape) -> float:
    read = target.parameters * target.bytes_per_value / (profile.hbm_gb_s * GIGA)
    computed = 2 * target.parameters * sequences / (profile.bf16_tflops * TERA)
    return max(read, computed)


def _transfer(layer: LayerTraffic, profile: HardwareProfile, scale: float) -> float:
    """Seconds for what one layer moved: both directions of the link at one time, then the disk."""
    moved = {pair: count for pair, count in layer.moved.items() if count}
    link = [count for pair, count in moved.items() if DISK not in pair]
    disk = sum(count for pair, count in moved.items() if DISK in pair)
    seconds = max(link, default=0) / (profile.link_gb_s * GIGA) + disk / (profile.disk_gb_s * GIGA)
    return scale * seconds + len(moved) * profile.transfer_us * MICRO
