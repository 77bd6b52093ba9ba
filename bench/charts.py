"""Charts in SVG: horizontal bars, and ranges of latencies on a logarithmic scale."""

import math
from html import escape

WIDTH = 760
LABELS = 230
ROW = 26
TOP = 46
BOTTOM = 34
# Room for the figure after the longest bar.
MARGIN = 80

# One colour per kind of system, distinguishable without red and green (Okabe and Ito).
OURS, FLOOR, PEER = "#0072b2", "#999999", "#e69f00"
MARKS = ("#56b4e9", "#0072b2", "#d55e00")


def colour(name):
    """The colour of a system."""
    if name.startswith("relay"):
        return FLOOR
    return OURS if name.startswith(("cloudbridge", "fleet")) else PEER


def frame(title, rows, body, foot):
    """The picture around `body`, with a white background so that it is readable on any page."""
    height = TOP + ROW * rows + BOTTOM
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n'
        f'<text x="12" y="24" font-size="15" font-weight="bold">{escape(title)}</text>\n'
        + "\n".join(body)
        + f'\n<text x="{LABELS}" y="{height - 12}" fill="#555">{escape(foot)}</text>\n</svg>\n'
    )


def label(text, y):
    """The name of a row, left of the axis."""
    return f'<text x="{LABELS - 8}" y="{y + 17}" text-anchor="end">{escape(text)}</text>'


def figure(value):
    """Three significant digits."""
    return f"{value:,.0f}".replace(",", " ") if value >= 100 else f"{value:.3g}"


def bars(title, unit, rows):
    """Rows of (label, value, system), as bars from zero."""
    most = max((value for _, value, _ in rows), default=1) or 1
    body = []
    for place, (text, value, system) in enumerate(rows):
        y = TOP + ROW * place
        length = max(0, value) / most * (WIDTH - LABELS - MARGIN)
        body.append(label(text, y))
        body.append(f'<rect x="{LABELS}" y="{y + 4}" width="{length:.1f}" height="{ROW - 8}" fill="{colour(system)}"/>')
        body.append(f'<text x="{LABELS + length + 6:.1f}" y="{y + 17}">{figure(value)}</text>')
    return frame(title, len(rows), body, unit)


def ranges(title, unit, rows):
    """Rows of (label, [ascending values]), as marks on a line over a grid of decades."""
    values = [value for _, some in rows for value in some if value]
    low = math.floor(math.log10(min(values, default=1)))
    high = max(low + 1, math.ceil(math.log10(max(values, default=10))))
    scale = (WIDTH - LABELS - MARGIN) / (high - low)
    bottom = TOP + ROW * len(rows)
    body = []
    for decade in range(low, high + 1):
        x = LABELS + (decade - low) * scale
        body.append(f'<line x1="{x:.1f}" y1="{TOP - 4}" x2="{x:.1f}" y2="{bottom}" stroke="#ddd"/>')
        small = 'text-anchor="middle" fill="#555" font-size="11"'
        body.append(f'<text x="{x:.1f}" y="{TOP - 8}" {small}>{figure(10.0**decade)}</text>')
    for place, (text, some) in enumerate(rows):
        y = TOP + ROW * place
        places = [LABELS + (math.log10(value) - low) * scale for value in some if value]
        body.append(label(text, y))
        if not places:
            continue
        ends = f'x1="{places[0]:.1f}" y1="{y + 13}" x2="{places[-1]:.1f}" y2="{y + 13}"'
        body.append(f'<line {ends} stroke="#bbb" stroke-width="3"/>')
        for x, mark in zip(places, MARKS):
            body.append(f'<circle cx="{x:.1f}" cy="{y + 13}" r="6" fill="{mark}"/>')
        body.append(f'<text x="{places[-1] + 12:.1f}" y="{y + 17}">{figure(some[-1])}</text>')
    return frame(title, len(rows), body, unit)
