"""Charts as inline SVG: no script, no font of their own, colours from the page's style sheet.

Every chart is drawn in a fixed coordinate system and scales with the page. Each mark has a ``<title>``, so a
pointer held over it shows the figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ventris.bench.report.wording import DASH, TIMES
from ventris.bench.statistics import Ratio

WIDTH = 860
COLOURS = 8
"""Series colours that the style sheet defines, ``--series-0`` and so on."""


@dataclass(frozen=True, slots=True)
class Line:
    """A series of points."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int


@dataclass(frozen=True, slots=True)
class Dot:
    """A ratio of one series in one row."""

    name: str
    value: Ratio | None
    colour: int


@dataclass(frozen=True, slots=True)
class Point:
    """A measured point with the interval of its height; ``None`` where there is none."""

    name: str
    x: float
    y: float
    low: float | None
    high: float | None
    colour: int


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar in parts, each with a name and a share of 1."""

    name: str
    parts: Sequence[tuple[str, float]]


def legend(names: Sequence[str], colours: Sequence[int] | None = None) -> str:
    """Names beside their colours."""
    given = colours or range(len(names))
    items = "".join(
        f'<span class="key"><i style="background:var(--series-{colour % COLOURS})"></i>{escape(name)}</span>'
        for name, colour in zip(names, given, strict=True)
    )
    return f'<p class="legend">{items}</p>'


def dot_plot(rows: Sequence[tuple[str, Sequence[Dot]]], label: str) -> str:
    """Ratios with their intervals, a group of rows for each category; hollow where 1 is not excluded."""
    values = [1.0]
    for _, dots in rows:
        for dot in dots:
            if dot.value is not None:
                values += [dot.value.median, *(v for v in (dot.value.low, dot.value.high) if v is not None)]
    ticks = nice_ticks(min(values), max(values))
    left, right, top, each, gap = 190, 24, 8, 11, 10
    height = top + sum(each * max(len(dots), 1) + gap for _, dots in rows) + 40
    scale = _Scale(ticks[0], ticks[-1], left, WIDTH - right)
    bottom = height - 36
    parts = [
        f'<line class="{"one" if tick == 1 else "grid"}" x1="{scale(tick):.1f}" x2="{scale(tick):.1f}" '
        f'y1="{top}" y2="{bottom}"/>'
        f'<text class="tick" x="{scale(tick):.1f}" y="{bottom + 16}" text-anchor="middle">'
        f"{tick:g}{TIMES}</text>"
        for tick in ticks
    ]
    if 1 not in ticks:
        x = scale(1.0)
        parts.append(f'<line class="one" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
    y = float(top)
    for name, dots in rows:
        middle = y + (each * max(len(dots), 1) + gap) / 2
        parts.append(
            f'<text class="row" x="{left - 12}" y="{middle + 4:.1f}" text-anchor="end">{escape(name)}</text>'
        )
        y += gap / 2
        for dot in dots:
            y += each
            if dot.value is not None:
                parts.append(_dot(dot, name, scale, y - each / 2))
        y += gap / 2
        if name != rows[-1][0]:
            parts.append(f'<line class="grid" x1="{left}" x2="{WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
    parts.append(_axis_label(label, (left + WIDTH - right) / 2, height - 4))
    return _svg(height, parts, label)


def _dot(dot: Dot, row: str, scale: _Scale, y: float) -> str:
    value = dot.value
    assert value is not None  # the caller draws no others
    colour = f"var(--series-{dot.colour % COLOURS})"
    title = f"{row}, {dot.name}: {value.median:.2f}{TIMES}"
    whisker = ""
    if value.low is not None and value.high is not None:
        title += f" ({value.low:.2f}{DASH}{value.high:.2f}, {value.verdict})"
        whisker = (
            f'<line x1="{scale(value.low):.1f}" x2="{scale(value.high):.1f}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="{colour}" stroke-width="2"/>'
        )
    sure = value.verdict in ("faster", "slower")
    fill = colour if sure else "var(--page)"
    return (
        f"<g>{whisker}"
        f'<circle cx="{scale(value.median):.1f}" cy="{y:.1f}" r="4.5" fill="{fill}" stroke="{colour}" '
        f'stroke-width="2"><title>{escape(title)}</title></circle></g>'
    )


def line_chart(
    lines: Sequence[Line], across: str, upwards: str, ticks: Sequence[float], top_value: float | None = None
) -> str:
    """Lines with a dot at every point; the vertical axis begins at 0.

    Args:
        ticks: Where the horizontal axis is labelled.
        top_value: End of the vertical axis; the data's own by default.
    """
    height, left, right, top = 300, 64, 24, 12
    bottom = height - 48
    highest = top_value or max((y for line in lines for _, y in line.points), default=1.0) or 1.0
    levels = nice_ticks(0.0, highest)
    places = [*(x for line in lines for x, _ in line.points), *ticks] or [0.0, 1.0]
    across_scale = _Scale(min(places), max(places), left + 10, WIDTH - right - 10)
    up_scale = _Scale(levels[0], levels[-1], bottom, top)
    parts = _levels(levels, up_scale, left, WIDTH - right)
    parts += [
        f'<text class="tick" x="{across_scale(tick):.1f}" y="{bottom + 16}" text-anchor="middle">'
        f"{tick:g}</text>"
        for tick in ticks
    ]
    for line in lines:
        colour = f"var(--series-{line.colour % COLOURS})"
        path = " ".join(f"{across_scale(x):.1f},{up_scale(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        parts += [
            f'<circle cx="{across_scale(x):.1f}" cy="{up_scale(y):.1f}" r="4" fill="{colour}">'
            f"<title>{escape(line.name)}: {y:.3g} at {x:g}</title></circle>"
            for x, y in line.points
        ]
    parts.append(_axis_label(across, (left + WIDTH - right) / 2, height - 8))
    parts.append(_upwards(upwards, (top + bottom) / 2))
    return _svg(height, parts, f"{upwards} by {across}")


def fitted_chart(
    points: Sequence[Point],
    curves: Sequence[tuple[int, Sequence[tuple[float, float, float, float]]]],
    across: str,
    upwards: str,
) -> str:
    """Points with intervals and the curves fitted to them; the horizontal axis is logarithmic.

    Args:
        curves: Colour, and x, y and the ends of the band around y.
    """
    height, left, right, top = 320, 64, 24, 12
    bottom = height - 48
    places = [point.x for point in points] + [x for _, curve in curves for x, _, _, _ in curve]
    heights = [point.y if point.high is None else point.high for point in points]
    levels = nice_ticks(0.0, min(max([*heights, *(y for _, curve in curves for _, y, _, _ in curve)]), 1.0))
    up_scale = _Scale(levels[0], levels[-1], bottom, top)
    logarithms = _Scale(math.log(min(places)), math.log(max(places)), left + 24, WIDTH - right - 24)
    parts = _levels(levels, up_scale, left, WIDTH - right)
    parts += [
        f'<text class="tick" x="{logarithms(math.log(tick)):.1f}" y="{bottom + 16}" text-anchor="middle">'
        f"{tick:g}</text>"
        for tick in _decades(min(places), max(places))
    ]
    for colour, curve in curves:
        filled = f"var(--series-{colour % COLOURS})"
        across_band = [(x, high) for x, _, _, high in curve] + [(x, low) for x, _, low, _ in reversed(curve)]
        # What a band says beyond the axis is not drawn over the labels.
        ends = (levels[0], levels[-1])
        band = " ".join(
            f"{logarithms(math.log(x)):.1f},{up_scale(min(max(y, ends[0]), ends[1])):.1f}"
            for x, y in across_band
        )
        line = " ".join(f"{logarithms(math.log(x)):.1f},{up_scale(y):.1f}" for x, y, _, _ in curve)
        parts.append(f'<polygon fill="{filled}" opacity="0.14" points="{band}"/>')
        parts.append(f'<polyline fill="none" stroke="{filled}" stroke-width="2" points="{line}"/>')
    for point in points:
        x, colour_name = logarithms(math.log(point.x)), f"var(--series-{point.colour % COLOURS})"
        title = f"{point.name}: {point.y:.3g} at {point.x:.3g}"
        if point.low is not None and point.high is not None:
            title += f" ({point.low:.3g}{DASH}{point.high:.3g})"
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{up_scale(point.low):.1f}" '
                f'y2="{up_scale(point.high):.1f}" stroke="{colour_name}" stroke-width="2"/>'
            )
        parts.append(
            f'<circle cx="{x:.1f}" cy="{up_scale(point.y):.1f}" r="4.5" fill="{colour_name}">'
            f"<title>{escape(title)}</title></circle>"
        )
    parts.append(_axis_label(across, (left + WIDTH - right) / 2, height - 8))
    parts.append(_upwards(upwards, (top + bottom) / 2))
    return _svg(height, parts, f"{upwards} by {across}")


def stacked_bars(bars: Sequence[Bar], colours: dict[str, int], label: str) -> str:
    """Shares of a whole, one bar a row."""
    left, right, top, each = 190, 24, 6, 30
    height = top + each * len(bars) + 36
    scale = _Scale(0.0, 1.0, left, WIDTH - right)
    parts = []
    for index, bar in enumerate(bars):
        y = top + each * index
        parts.append(
            f'<text class="row" x="{left - 12}" y="{y + each / 2 + 4:.1f}" text-anchor="end">'
            f"{escape(bar.name)}</text>"
        )
        start = 0.0
        for name, share in bar.parts:
            x, width = scale(start), scale(start + share) - scale(start)
            parts.append(
                f'<rect x="{x:.1f}" y="{y + 4}" width="{max(width, 0):.1f}" height="{each - 8}" '
                f'fill="var(--series-{colours[name] % COLOURS})">'
                f"<title>{escape(bar.name)}, {escape(name)}: {100 * share:.1f} %</title></rect>"
            )
            if width > 52:
                parts.append(
                    f'<text class="in-bar" x="{x + width / 2:.1f}" y="{y + each / 2 + 4:.1f}" '
                    f'text-anchor="middle">{100 * share:.1f} %</text>'
                )
            start += share
    bottom = top + each * len(bars)
    parts += [
        f'<text class="tick" x="{scale(tick / 4):.1f}" y="{bottom + 14}" text-anchor="middle">'
        f"{25 * tick} %</text>"
        for tick in range(5)
    ]
    return _svg(height, parts, label)


def nice_ticks(low: float, high: float, count: int = 7) -> list[float]:
    """Round numbers that reach from below ``low`` to above ``high``, about ``count`` of them."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / max(count - 1, 1)
    size = 10.0 ** math.floor(math.log10(raw))
    step = size * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * size >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Round numbers between two positive ones, for a logarithmic axis; a narrow one has finer steps."""
    steps = (1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0) if high / low < 12 else (1.0, 2.0, 5.0)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks = [round(step * 10.0**power, 10) for power in range(first, last + 1) for step in steps]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


class _Scale:
    """A linear map from values to coordinates."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.start = low, start
        self.factor = (end - start) / (high - low) if high != low else 0.0

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) * self.factor


def _levels(levels: Sequence[float], scale: _Scale, left: float, right: float) -> list[str]:
    """Horizontal lines with their values."""
    return [
        f'<line class="grid" x1="{left}" x2="{right}" y1="{scale(level):.1f}" y2="{scale(level):.1f}"/>'
        f'<text class="tick" x="{left - 8}" y="{scale(level) + 4:.1f}" text-anchor="end">{level:g}</text>'
        for level in levels
    ]


def _upwards(text: str, middle: float) -> str:
    """The label of the vertical axis."""
    return (
        f'<text class="tick" transform="translate(14 {middle:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(text)}</text>'
    )


def _axis_label(text: str, x: float, y: float) -> str:
    return f'<text class="tick" x="{x:.0f}" y="{y:.0f}" text-anchor="middle">{escape(text)}</text>'


def _svg(height: float, parts: Sequence[str], label: str) -> str:
    box = f'viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}"'
    return f"<svg {box}>{''.join(parts)}</svg>"
