"""Ranges in words, without false precision: two figures, in the unit that suits. Stdlib only."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def range_words(value: Mapping[str, float], show: Callable[[float], str]) -> str:
    """A range, or one number where both ends read the same; a unit that both have is said once."""
    low, high = show(float(value["low"])), show(float(value["high"]))
    if low == high:
        return low
    number, space, unit = low.partition(" ")
    return f"{number if space and high.endswith(f' {unit}') else low} – {high}"


def speed(value: float) -> str:
    """Tokens a second without false precision: two figures."""
    return two_figures(value)


def two_figures(value: float) -> str:
    """A number rounded to two figures."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def duration(seconds: float) -> str:
    """A time to two figures, in the unit that suits it."""
    for limit, unit, length in ((0.09, "ms", 1e-3), (90.0, "s", 1.0), (5400.0, "min", 60.0), (172_800.0, "h", 3600.0)):
        if seconds < limit:
            return f"{two_figures(seconds / length)} {unit}"
    days = seconds / 86_400
    return f"{two_figures(days)} days" if days < 730 else f"{two_figures(days / 365)} years"


def dollars(value: float) -> str:
    """Money to two figures, cents at least from one cent on."""
    if value >= 10:
        return f"{float(f'{value:.2g}'):,.0f}"
    return f"{value:,.2f}" if value >= 0.095 else f"{float(f'{value:.2g}'):g}"
