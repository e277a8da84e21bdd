"""Checks of settings that algorithms share; each refusal names the key and the way out."""

AMOUNTS = "give whole tokens (2048), or a share between 0 and 1 (0.05)"


def check_amount(key: str, value: object) -> None:
    """Refuse what is neither tokens (int >= 1) nor a share of the context (0 < x < 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key}={value!r} is no amount; {AMOUNTS}")
    if isinstance(value, int) and value < 1:
        raise ValueError(f"{key}={value} is below 1; {AMOUNTS}")
    if isinstance(value, float) and not 0.0 < value < 1.0:
        raise ValueError(f"{key}={value} is no share of the context; {AMOUNTS}")


def check_count(key: str, value: object, *, least: int) -> None:
    """Refuse what is no whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{key}={value!r} must be a whole number of at least {least}")


def check_share(key: str, value: object, *, of: str) -> None:
    """Refuse what is no share of something, above 0 and at most 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value <= 1.0:
        raise ValueError(f"{key}={value!r} is no share of {of}; give a number above 0, at most 1")


def check_fraction(key: str, value: object) -> None:
    """Refuse what is no number between 0 and 1, both allowed."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{key}={value!r} is no share; give a number from 0 to 1")
