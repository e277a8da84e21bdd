"""One number of a record, with everything that is needed to read it."""

import math
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import NonNegativeInt, model_validator

from harness.schema import Part

Direction = Literal["higher", "lower"]
Status = Literal["ok", "insufficient_n", "unobservable", "invalid"]
Source = Literal["client", "accounting"]


class Interval(Part):
    """A confidence interval."""

    lo: float
    hi: float
    level: float
    method: str


class Metric(Part):
    """A value with its unit, the number of observations behind it, and which way is better.

    status: `insufficient_n` keeps a value that must not be gated; `unobservable` and `invalid`
    (a NaN or an infinity came out) have none.
    """

    value: float | None
    unit: str
    n: NonNegativeInt
    direction: Direction | None
    aggregation: str
    ci: Interval | None = None
    status: Status = "ok"
    source: Source

    @model_validator(mode="after")
    def _value_fits_status(self) -> Self:
        """A value that is not there is null, and says why."""
        if (self.value is None) != (self.status in ("unobservable", "invalid")):
            raise ValueError(f"value {self.value} cannot have status {self.status}")
        return self


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What is measured, before there is a value."""

    unit: str
    direction: Direction | None
    source: Source

    def metric(
        self,
        value: float | None,
        *,
        n: int,
        aggregation: str,
        ci: Interval | None = None,
        enough: bool = True,
    ) -> Metric:
        """The metric of a value; None is unobservable, NaN and infinity are invalid."""
        status: Status = "ok" if enough else "insufficient_n"
        if value is None:
            status = "unobservable"
        elif not math.isfinite(value):
            value, status = None, "invalid"
        return Metric(
            value=None if value is None else float(value),
            unit=self.unit,
            n=n,
            direction=self.direction,
            aggregation=aggregation,
            ci=ci if status in ("ok", "insufficient_n") else None,
            status=status,
            source=self.source,
        )


def quotient(numerator: float | None, denominator: float | None) -> float | None:
    """Their ratio; None where one of them is unknown or the denominator is zero."""
    if numerator is None or not denominator:
        return None
    return numerator / denominator
