#!/usr/bin/env python3
"""Draws docs/images/architecture.svg, the picture in the README. Run it with `make diagrams`; it needs Python 3 only.

Edit BOXES, ARROWS and NOTES, then look at the result on a light and a dark background. All lengths are in pixels, with
the origin at the top left. The picture has a light and a dark colour scheme and its own background, because the theme
of the page around it may differ from the colour scheme of the browser.
"""

import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 1000, 440


@dataclass
class Box:
    """A part of the system. `kind` selects the colour; `says` are lines below the name."""

    kind: str
    name: str
    says: list[str]
    x: int
    y: int
    width: int
    height: int
    # The distance of the name's baseline from the top; None centres the text.
    top: int | None = None


@dataclass
class Arrow:
    """A line through these points. `both` puts a head at each end."""

    points: list[tuple[int, int]]
    both: bool = False


@dataclass
class Note:
    """Text beside an arrow, centred at x; the last line's baseline is y."""

    x: int
    y: int
    lines: list[str]


BOXES = [
    Box("outside", "GitHub", ["App", "Actions"], 14, 96, 108, 310, top=150),
    Box("function", "ingest", ["verifies webhooks"], 256, 100, 132, 64),
    Box("store", "queue", ["SQS"], 420, 100, 74, 64),
    Box("function", "scaler", ["decides per pool"], 526, 100, 136, 64),
    Box("store", "main table", ["jobs, machines, decisions, events"], 400, 226, 238, 60),
    Box("store", "boot table", ["read once"], 672, 226, 128, 54),
    Box("store", "reports table", ["boot, usage"], 672, 294, 128, 52),
    Box("function", "janitor", ["compares and repairs each minute"], 400, 342, 238, 64),
    Box("machine", "EC2 machine", [], 836, 100, 138, 306, top=30),
    Box("inner", "runner", ["from GitHub"], 848, 148, 114, 56),
    Box("inner", "agent", ["fetches its", "registration"], 848, 222, 114, 68),
]

ARROWS = [
    Arrow([(122, 132), (256, 132)]),  # webhook
    Arrow([(388, 132), (420, 132)]),
    Arrow([(494, 132), (526, 132)]),
    Arrow([(662, 132), (836, 132)]),  # RunInstances
    Arrow([(548, 164), (548, 196), (122, 196)]),  # JIT configuration
    Arrow([(592, 164), (592, 226)], both=True),
    Arrow([(646, 164), (646, 196), (744, 196), (744, 226)]),
    Arrow([(800, 253), (848, 253)]),
    Arrow([(858, 290), (858, 320), (800, 320)]),
    Arrow([(672, 320), (655, 320), (655, 358), (638, 358)]),
    Arrow([(519, 342), (519, 286)], both=True),
    Arrow([(400, 374), (122, 374)], both=True),
    Arrow([(638, 374), (836, 374)], both=True),
    Arrow([(905, 222), (905, 204)]),
    Arrow([(68, 96), (68, 40), (905, 40), (905, 100)], both=True),  # the job
]

NOTES = [
    Note(178, 122, ["webhook"]),
    Note(178, 186, ["registers", "runners"]),
    Note(178, 364, ["jobs, runners,", "deliveries"]),
    Note(749, 122, ["launches"]),
    Note(737, 364, ["lists, terminates"]),
    Note(695, 186, ["registration"]),
    Note(480, 30, ["GitHub gives the job to any idle runner whose labels fit"]),
]

# Texts in the machine's box, below what it contains.
LAST = Note(905, 340, ["runs one job,", "then powers off"])

FRAME = (238, 64, 750, 362, "your AWS account")

LEGEND = [("function", "Lambda function"), ("store", "queue or table"), ("machine", "EC2 machine")]
LEGEND_AT = (258, 250)

SHAPES = """
  text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
    text-anchor: middle; font-size: 12.5px; }
  .name { font-weight: 600; font-size: 15px; }
  .frame-name { text-anchor: start; font-weight: 600; }
  .legend { text-anchor: start; }
  .box { stroke-width: 1.5; }
  .frame { fill: none; stroke-width: 1.5; stroke-dasharray: 6 5; }
  .arrow { fill: none; stroke-width: 1.6; }
"""

# Every colour twice, and no CSS variables: some viewers of SVG files do not know them.
COLOURS = """
  .ground {{ fill: {ground}; stroke: {edge}; }}
  .frame {{ stroke: {edge}; }}
  text {{ fill: {soft}; }}
  .name {{ fill: {text}; }}
  .arrow {{ stroke: {soft}; }}
  .head {{ fill: {soft}; }}
  .function {{ fill: {function}; stroke: {function_edge}; }}
  .store {{ fill: {store}; stroke: {store_edge}; }}
  .machine {{ fill: {machine}; stroke: {machine_edge}; }}
  .outside {{ fill: {outside}; stroke: {soft}; }}
  .inner {{ fill: {ground}; stroke: {machine_edge}; stroke-width: 1; }}
"""
LIGHT = {
    "ground": "#ffffff",
    "edge": "#d0d7de",
    "text": "#1f2328",
    "soft": "#59636e",
    "function": "#fff4e5",
    "function_edge": "#d9822b",
    "store": "#eaf3ff",
    "store_edge": "#3b82d6",
    "machine": "#e9f7ec",
    "machine_edge": "#2f9e4f",
    "outside": "#f3f4f6",
}
DARK = {
    "ground": "#0f141a",
    "edge": "#30363d",
    "text": "#e6edf3",
    "soft": "#9ea7b3",
    "function": "#33230f",
    "function_edge": "#e0994f",
    "store": "#10263f",
    "store_edge": "#5ea0ee",
    "machine": "#102c1a",
    "machine_edge": "#4cc26a",
    "outside": "#1d232b",
}


def text(kind: str, x: float, y: float, words: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(words)}</text>'


def box(it: Box) -> list[str]:
    middle = it.x + it.width / 2
    first = it.y + (it.top if it.top is not None else it.height / 2 + 5 - 8.5 * len(it.says))
    drawn = [
        f'<rect class="box {it.kind}" x="{it.x}" y="{it.y}" width="{it.width}" height="{it.height}" rx="9"/>',
        text("name", middle, first, it.name),
    ]
    return drawn + [text("says", middle, first + 2 + 16 * (index + 1), line) for index, line in enumerate(it.says)]


def arrow(it: Arrow) -> list[str]:
    """Corners are rounded: each is cut off at both sides and bridged by a curve."""
    (x, y), *others = it.points
    path = f"M{x} {y}"
    for (x0, y0), (x1, y1), (x2, y2) in zip(it.points, it.points[1:], it.points[2:], strict=False):

        def towards(x, y, of_x, of_y, by=10):
            length = abs(x - of_x) + abs(y - of_y)
            return f"{of_x + (x - of_x) * by / length:g} {of_y + (y - of_y) * by / length:g}"

        path += f" L{towards(x0, y0, x1, y1)} Q{x1} {y1} {towards(x2, y2, x1, y1)}"
    path += f" L{others[-1][0]} {others[-1][1]}"
    start = ' marker-start="url(#head)"' if it.both else ""
    return [f'<path class="arrow" d="{path}"{start} marker-end="url(#head)"/>']


def note(it: Note) -> list[str]:
    last = len(it.lines) - 1
    return [text("note", it.x, it.y - 15 * (last - index), line) for index, line in enumerate(it.lines)]


def picture() -> str:
    x, y, width, height, name = FRAME
    lines = [
        f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="12"/>',
        f'<rect class="frame" x="{x}" y="{y}" width="{width}" height="{height}" rx="12"/>',
        text("frame-name", x + 14, y + 22, name),
    ]
    for index, (kind, meaning) in enumerate(LEGEND):
        x, y = LEGEND_AT[0], LEGEND_AT[1] + 24 * index
        lines.append(f'<rect class="box {kind}" x="{x}" y="{y - 11}" width="14" height="14" rx="4"/>')
        lines.append(text("legend", x + 22, y + 1, meaning))
    for it in BOXES:
        lines += box(it)
    for it in ARROWS:
        lines += arrow(it)
    for it in [*NOTES, LAST]:
        lines += note(it)
    return document(
        "architecture.py",
        "The architecture of Drover",
        (WIDTH, HEIGHT),
        (SHAPES, COLOURS),
        [
            '<defs><marker id="head" viewBox="0 0 10 10" refX="10" refY="5" markerWidth="8" markerHeight="8" '
            'markerUnits="userSpaceOnUse" orient="auto-start-reverse"><path class="head" d="M0 0.5 L10 5 L0 9.5 z"/>'
            "</marker></defs>",
            *lines,
        ],
    )


def document(script: str, title: str, size: tuple[float, float], style: tuple[str, str], lines: list[str]) -> str:
    """An SVG file that a script beside this one draws. `style` has what both colour schemes share, and the colours."""
    (width, height), (shapes, colours) = size, style
    return "\n".join(
        [
            f"<!-- Generated by docs/images/{script}: change that, and run `make diagrams`. -->",
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
            'aria-labelledby="title">',
            f'<title id="title">{escape(title)}</title>',
            f"<style>{shapes}{colours.format(**LIGHT)}",
            f"  @media (prefers-color-scheme: dark) {{{colours.format(**DARK)}  }}",
            "</style>",
            *lines,
            "</svg>",
            "",
        ]
    )


def show(path: Path, drawn: str) -> None:
    """Writes the picture beside its script, or with `--print` to the standard output."""
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(drawn)
    else:
        path.with_suffix(".svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    show(Path(__file__), picture())
