"""Numbers for people: three digits and a unit that fits."""

from math import floor, log10

BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
UNKNOWN = "-"


def digits(value: float) -> str:
    """Three significant digits at least, and no exponent."""
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 99.95:
        return f"{value:,.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.9995 else f"{value:.{2 - floor(log10(size))}f}"


def ratio(value: float) -> str:
    """A ratio: two digits behind the point, more where that would leave only one."""
    return f"{value:.2f}" if abs(value) >= 0.0995 else digits(value)


def binary_bytes(value: float) -> str:
    """Bytes in the largest binary unit that leaves at least one of it."""
    power = 0
    while abs(value) >= 1024 and power < len(BINARY_UNITS) - 1:
        value /= 1024
        power += 1
    return f"{digits(value) if power else count(value)} {BINARY_UNITS[power]}"


def duration(milliseconds: float) -> str:
    """Milliseconds, or seconds from ten of them on."""
    if abs(milliseconds) < 1e4:
        return f"{digits(milliseconds)} ms"
    return f"{digits(milliseconds / 1e3)} s"


def percent(fraction: float) -> str:
    """A fraction in per cent, one digit behind the point."""
    return f"{100 * fraction:.1f} %"


def count(value: float) -> str:
    """A number of things, thousands apart."""
    return f"{value:,.0f}"
