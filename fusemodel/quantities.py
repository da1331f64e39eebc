"""Numbers as people write them."""

from __future__ import annotations

_TIME = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_ENERGY = ((1e3, "kJ"), (1.0, "J"), (1e-3, "mJ"), (1e-6, "uJ"), (1e-9, "nJ"), (1e-12, "pJ"))
_BYTES = ((2**50, "PiB"), (2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))


def _scaled(value: float, units: tuple[tuple[float, str], ...]) -> str:
    for scale, unit in units:
        if abs(value) >= scale:
            return f"{value / scale:.4g} {unit}"
    return f"{value / units[-1][0]:.4g} {units[-1][1]}"


def seconds(value: float) -> str:
    return _scaled(value, _TIME)


def joules(value: float) -> str:
    return _scaled(value, _ENERGY)


def size(value: float) -> str:
    """Bytes."""
    return _scaled(value, _BYTES)


def times(value: float) -> str:
    """A speed-up: two digits after the point, fewer for large ones, three significant ones for small ones."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value >= 0.2 else f"{value:.3g}"


def part(value: float) -> str:
    """A part of something: three digits after the point, two significant ones for small ones; a dash if not known."""
    if value != value:
        return "-"
    return f"{value:.3f}" if value >= 0.01 or not value else f"{value:.2g}"


def percent(value: float) -> str:
    return f"{value:.1%}"


def count(value: float) -> str:
    """A large number in powers of ten."""
    return f"{value:,.0f}" if abs(value) < 1e6 else f"{value:.4g}"


def tokens(value: int | None) -> str:
    """``16K``, ``1M`` or the number."""
    if value is None:
        return "-"
    for scale, suffix in ((2**20, "M"), (2**10, "K")):
        if value >= scale and value % scale == 0:
            return f"{value // scale}{suffix}"
    return str(value)
