"""What every part of a record has in common: frozen, complete, finite."""

import json
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue


class Part(BaseModel):
    """A piece of a record: no unknown key, no silent conversion, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def refuse_non_finite(value: JsonValue) -> JsonValue:
    """The value itself; NaN and infinity anywhere in it are a ValueError."""
    json.dumps(value, allow_nan=False)
    return value


# `allow_inf_nan` does not reach inside a JsonValue that is read from JSON text.
JsonObject = dict[str, Annotated[JsonValue, AfterValidator(refuse_non_finite)]]
