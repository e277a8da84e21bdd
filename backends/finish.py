"""How an answer ends."""

from typing import Literal

Finish = Literal["stop", "length", "error"]
