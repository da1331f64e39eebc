"""Quantities with units, parsed with pint from a registry of just the units these files use."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

from fusemodel.errors import nearest

if TYPE_CHECKING:
    import pint

_DEFINITIONS = """
kilo- = 1e3 = k-
mega- = 1e6 = M-
giga- = 1e9 = G-
tera- = 1e12 = T-
milli- = 1e-3 = m-
micro- = 1e-6 = u- = µ-
nano- = 1e-9 = n-
pico- = 1e-12 = p-
femto- = 1e-15 = f-
centi- = 1e-2 = c-
kibi- = 1024 = Ki-
mebi- = 1048576 = Mi-
gibi- = 1073741824 = Gi-
tebi- = 1099511627776 = Ti-
second = [time] = s
meter = [length] = m
gram = [mass] = g
bit = [information] = b
byte = 8 * bit = B
hertz = 1 / second = Hz
joule = kilogram * meter ** 2 / second ** 2 = J
watt = joule / second = W
"""

#: What each kind of quantity is stored in, an example for messages, and its usual units.
KINDS = {
    "frequency": ("hertz", "940 MHz", ("Hz", "kHz", "MHz", "GHz")),
    "bandwidth": ("byte / second", "400 GiB/s", ("bit/s", "B/s", "MB/s", "GB/s", "TB/s", "MiB/s", "GiB/s", "TiB/s")),
    "bytes": ("byte", "16 MiB", ("bit", "B", "kB", "MB", "GB", "KiB", "MiB", "GiB")),
    "energy": ("picojoule", "17.2 pJ", ("fJ", "pJ", "nJ", "uJ", "mJ", "J")),
    "area": ("micrometer ** 2", "1.5 mm^2", ("um^2", "mm^2")),
    "time": ("second", "4 us", ("ns", "us", "ms", "s")),
    "power": ("watt", "12 W", ("mW", "W", "kW")),
}
LEAST, MOST = 1e-30, 1e30  # in the stored unit; what lies outside would overflow in products


@cache
def _registry() -> pint.UnitRegistry:
    import pint

    registry: Any = pint.UnitRegistry(None)  # pyright: ignore[reportArgumentType] (None: no units but ours)
    for line in _DEFINITIONS.strip().splitlines():
        registry.define(line)
    return registry


def quantity(text: Any, kind: str, *, positive: bool = True) -> float:
    """The number behind ``text`` in the unit of ``kind`` (a key of :data:`KINDS`); ValueError says what is wrong."""
    unit, example, _ = KINDS[kind]
    expected = f"expected {_a(kind)} such as `{example}`"
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        raise ValueError(f"{text} has no unit; {expected}")
    if not isinstance(text, str) or len(text) > 80:
        raise ValueError(f"{str(text)[:40]!r} is not a quantity; {expected}")
    number, _, name = text.strip().partition(" ")
    if not name:
        split = next((i for i, c in enumerate(number) if c.isalpha() and c not in "eE"), len(number))
        number, name = number[:split], number[split:]
    try:
        value = float(number)
    except ValueError:
        raise ValueError(f"{text!r} does not start with a number; {expected}") from None
    if not name:
        raise ValueError(f"{text!r} has no unit; {expected}")
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        raise ValueError(f"{text!r} is not {'positive' if positive else 'zero or more'} and finite; {expected}")
    result = value * _factor(name.strip(), unit, text, kind)
    if value and not LEAST <= result <= MOST:
        raise ValueError(f"{text!r} is too {'large' if result > MOST else 'small'} to compute with; {expected}")
    return result


def _a(kind: str) -> str:
    return kind if kind == "bytes" else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


@cache
def _factor(name: str, unit: str, text: str, kind: str) -> float:
    import pint

    _, example, usual = KINDS[kind]
    expected = f"expected {_a(kind)} such as `{example}`"
    close = nearest(name, usual)
    unknown_unit = f"{text!r} has an unknown unit {name!r}; {expected}" + (
        f"; did you mean {close!r}?" if close else ""
    )
    if any(c.isdigit() and name[max(i - 1, 0)] not in "^*" for i, c in enumerate(name)):
        raise ValueError(unknown_unit)
    try:
        return float(_registry().Quantity(1.0, name).to(unit).magnitude)
    except pint.DimensionalityError:
        raise ValueError(f"{text!r} is not {_a(kind)}; {expected}") from None
    except Exception:  # pint raises whatever its tokenizer does for text that is no unit
        raise ValueError(unknown_unit) from None
