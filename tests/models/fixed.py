"""The bundled folder, and a corpus small enough to read."""

from pathlib import Path

from models.training.text import Corpus

BUNDLED = Path(__file__).parents[2] / "models" / "bundled"
CORPUS = Corpus(
    sentences=(
        "The old keeper walked past the gate and saw a lamp in the harbour.",
        "It was late, and the river ran quietly under the stone bridge.",
        "Nobody asked the miller why his boat had come back empty.",
    ),
    words=("boat", "bridge", "gate", "harbour", "keeper", "lamp", "miller", "river", "stone"),
)
