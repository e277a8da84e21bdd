"""Range checks of task settings: one-line errors with the value, the key and what is allowed."""

from collections.abc import Collection


def at_least(key: str, value: object, smallest: int) -> None:
    """Raise ValueError unless `value` is an int, not a bool, of at least `smallest`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise ValueError(f"{key}={value!r}: must be an integer of at least {smallest}")


def one_of(key: str, value: object, allowed: Collection[str]) -> None:
    """Raise ValueError unless `value` is one of the `allowed` names."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{key}={value!r}: must be one of {', '.join(allowed)}")


def names_among(key: str, values: object, allowed: Collection[str]) -> None:
    """Raise ValueError unless `values` lists one or more of the `allowed` names, none twice."""
    names = [] if isinstance(values, str) or not isinstance(values, Collection) else list(values)
    known = all(isinstance(name, str) and name in allowed for name in names)
    if not names or not known or len(set(names)) < len(names):
        shown = values if isinstance(values, str) else names or values
        raise ValueError(
            f"{key}={shown!r}: must be a list of one or more of {', '.join(allowed)}, none twice"
        )


def flag(key: str, value: object) -> None:
    """Raise ValueError unless `value` is a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"{key}={value!r}: must be true or false")


def text_or_none(key: str, value: object) -> None:
    """Raise ValueError unless `value` is a text that is not empty, or None."""
    if value is not None and not (isinstance(value, str) and value):
        raise ValueError(f"{key}={value!r}: must be a path or null")


def path_or(key: str, value: object, names: Collection[str]) -> None:
    """Raise ValueError unless `value` is text: a path, or one of the `names`."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key}={value!r}: must be a path, or one of {', '.join(names)}")
