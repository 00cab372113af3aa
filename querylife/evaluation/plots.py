"""Two small charts, drawn with Pillow: bars by group, and lines against the diagonal."""

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

INK, GRID = (40, 40, 40), (225, 225, 225)
COLOURS = ((120, 120, 120), (180, 150, 90), (70, 130, 180), (190, 90, 90), (60, 150, 90), (130, 90, 170))
HEIGHT, EDGE, BAR = 300, 40, 14

Point = tuple[float, float]


def bar_chart(groups: Mapping[str, Mapping[str, float]]) -> Image.Image:
    """groups: group to bar name to a value in [0, 1]. One colour per bar name, listed below."""
    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    group_width = BAR * (len(names) + 2)
    width = max(2 * EDGE + group_width * len(groups), 420)
    image = Image.new("RGB", (width, HEIGHT + 2 * EDGE + 16 * len(names)), "white")
    draw = ImageDraw.Draw(image)
    _axis(draw, width)
    for group_number, (group, bars) in enumerate(groups.items()):
        left = EDGE + BAR + group_number * group_width
        for number, name in enumerate(names):
            top = _y(bars.get(name, 0.0))
            box = (left + number * BAR, top, left + number * BAR + BAR - 3, _y(0.0))
            draw.rectangle(box, fill=COLOURS[number % len(COLOURS)])
        draw.text((left, _y(0.0) + 6), group, fill=INK)
    _legend(draw, names)
    return image


def line_chart(lines: Mapping[str, Sequence[Point]]) -> Image.Image:
    """lines: name to points with both coordinates in [0, 1], drawn over the diagonal."""
    width = HEIGHT + 2 * EDGE
    image = Image.new("RGB", (width, HEIGHT + 2 * EDGE + 16 * len(lines)), "white")
    draw = ImageDraw.Draw(image)
    _axis(draw, width)
    draw.line([(EDGE, _y(0.0)), (EDGE + HEIGHT, _y(1.0))], fill=GRID, width=2)
    for number, points in enumerate(lines.values()):
        places = [(EDGE + HEIGHT * x, _y(y)) for x, y in points]
        draw.line(places, fill=COLOURS[number % len(COLOURS)], width=3)
    _legend(draw, list(lines))
    return image


def _axis(draw: ImageDraw.ImageDraw, width: int) -> None:
    for tick in range(6):
        value = tick / 5
        draw.line([(EDGE, _y(value)), (width - EDGE, _y(value))], fill=GRID)
        draw.text((8, _y(value) - 6), f"{value:.1f}", fill=INK)


def _legend(draw: ImageDraw.ImageDraw, names: Sequence[str]) -> None:
    for number, name in enumerate(names):
        top = HEIGHT + EDGE + 28 + 16 * number
        draw.rectangle((EDGE, top, EDGE + 10, top + 10), fill=COLOURS[number % len(COLOURS)])
        draw.text((EDGE + 16, top - 1), name, fill=INK)


def _y(value: float) -> float:
    return EDGE + HEIGHT * (1 - value)
