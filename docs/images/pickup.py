#!/usr/bin/env python3
"""Draws docs/images/pickup.svg, the picture in docs/pick-up.md. Run it with `make diagrams`; it needs Python 3 only.

SECONDS were measured with the command that the page states, and DOLLARS follow from the prices that it states.
"""

from html import escape
from pathlib import Path

from architecture import document, show

WIDTH, ROW, LEFT, RIGHT = 760, 30, 170, 80

# Median from the webhook to the start of the job, by the machine that it starts on.
SECONDS = [("cold", 24.9), ("stopped", 15.9), ("warm", 5.0)]

# Five machines for a month, without a job.
DOLLARS = [("cold", 0), ("5 stopped", 41), ("5 warm by schedule", 125), ("5 warm", 409)]

STYLE = """
  text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
    font-size: 13px; }
  .title { font-weight: 600; font-size: 14px; }
  .label { text-anchor: end; }
"""
COLOURS = """
  .ground {{ fill: {ground}; stroke: {edge}; }}
  text {{ fill: {soft}; }}
  .title {{ fill: {text}; }}
  .seconds {{ fill: {store_edge}; }}
  .dollars {{ fill: {machine_edge}; }}
"""


def chart(kind: str, title: str, rows: list[tuple[str, float]], unit: str, top: float) -> tuple[list[str], float]:
    most = max(value for _, value in rows) or 1
    lines = [f'<text class="title" x="20" y="{top}">{escape(title)}</text>']
    for index, (name, value) in enumerate(rows):
        y = top + 18 + ROW * index
        width = max((WIDTH - LEFT - RIGHT) * value / most, 1)
        lines += [
            f'<text class="label" x="{LEFT - 10}" y="{y + 14}">{escape(name)}</text>',
            f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{width:g}" height="20" rx="4"/>',
            f'<text x="{LEFT + width + 8:g}" y="{y + 14}">{value:g} {unit}</text>',
        ]
    return lines, top + 18 + ROW * len(rows)


def picture() -> str:
    seconds, end = chart("seconds", "From the webhook to the job, median of eight jobs", SECONDS, "s", 34)
    dollars, end = chart("dollars", "Five m7i.large per month while no job runs", DOLLARS, "USD", end + 24)
    return document(
        "pickup.py",
        "How long a job waits, and what its machines cost meanwhile",
        (WIDTH, end + 10),
        (STYLE, COLOURS),
        [
            f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{end + 9:g}" rx="12"/>',
            *seconds,
            *dollars,
        ],
    )


if __name__ == "__main__":
    show(Path(__file__), picture())
