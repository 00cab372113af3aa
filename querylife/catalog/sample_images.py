"""Drawn pictures of products, which ship in place of photographs.

Every figure is drawn on a 100 x 130 grid, at several times the final size, and scaled down for smooth edges.
"""

import io
from collections.abc import Callable

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

GRID = (100, 130)
SCALE = 8
PICTURE = (225, 300)  # width, height in pixels

SKIN = (224, 190, 160)
SOLE = (238, 238, 234)
METAL = (176, 176, 182)


class Pen:
    """Draws shaded shapes in grid coordinates."""

    def __init__(self) -> None:
        self._canvas = Image.new("RGB", (GRID[0] * SCALE, GRID[1] * SCALE), (255, 255, 255))
        self._draw = ImageDraw.Draw(self._canvas)

    def shape(self, points: list[Point], fill: Colour) -> None:
        self._draw.polygon(_scaled(points), fill=fill, outline=shade(fill, 0.72), width=SCALE // 2)

    def line(self, points: list[Point], fill: Colour, width: float = 1.0) -> None:
        self._draw.line(_scaled(points), fill=fill, width=max(1, int(width * SCALE)), joint="curve")

    def oval(
        self, corners: list[Point], fill: Colour | None, outline: Colour | None = None, width: float = 0.6
    ) -> None:
        box = _scaled(corners)
        line = outline or (shade(fill, 0.72) if fill else None)
        self._draw.ellipse([box[0], box[1]], fill=fill, outline=line, width=max(1, int(width * SCALE)))

    def jpeg(self) -> bytes:
        file = io.BytesIO()
        self._canvas.resize(PICTURE, Image.Resampling.LANCZOS).save(file, "JPEG", quality=90)
        return file.getvalue()


def shade(colour: Colour, factor: float) -> Colour:
    """Darker below 1, lighter above."""
    red, green, blue = (max(0, min(255, round(channel * factor))) for channel in colour)
    return red, green, blue


def draw(figure: str, colour: Colour) -> bytes:
    """One figure of FIGURES in one colour, as a JPEG."""
    pen = Pen()
    FIGURES[figure](pen, colour)
    return pen.jpeg()


def _scaled(points: list[Point]) -> list[Point]:
    return [(x * SCALE, y * SCALE) for x, y in points]


def _mirrored(left: list[Point]) -> list[Point]:
    """A figure from its left outline, top to bottom: the right side is its mirror image."""
    return left + [(100 - x, y) for x, y in reversed(left)]


def _tshirt(pen: Pen, colour: Colour) -> None:
    pen.shape(_mirrored([(40, 20), (28, 24), (10, 46), (22, 56), (30, 48), (28, 108)]), colour)
    pen.oval([(40, 13), (60, 27)], shade(colour, 0.8))


def _shirt(pen: Pen, colour: Colour) -> None:
    pen.shape(_mirrored([(42, 18), (28, 24), (16, 60), (12, 96), (22, 98), (30, 58), (28, 112)]), colour)
    pen.shape([(42, 18), (50, 30), (40, 36), (36, 21)], shade(colour, 1.15))
    pen.shape([(58, 18), (50, 30), (60, 36), (64, 21)], shade(colour, 1.15))
    pen.line([(50, 30), (50, 112)], shade(colour, 0.7), 0.8)
    for y in range(40, 108, 13):
        pen.oval([(49, y - 1), (51, y + 1)], (250, 250, 250))


def _dress(pen: Pen, colour: Colour) -> None:
    pen.shape(_mirrored([(40, 14), (36, 16), (34, 34), (38, 56), (18, 118)]), colour)
    pen.line([(38, 56), (62, 56)], shade(colour, 0.65), 2)
    for x, foot in ((44, 36), (50, 50), (56, 64)):
        pen.line([(x, 60), (foot, 116)], shade(colour, 0.85), 0.8)


def _skirt(pen: Pen, colour: Colour) -> None:
    pen.shape(_mirrored([(36, 28), (36, 36), (16, 100)]), colour)
    pen.line([(36, 36), (64, 36)], shade(colour, 0.65), 1)
    for x, foot in ((42, 30), (47, 43), (53, 57), (58, 70)):
        pen.line([(x, 38), (foot, 98)], shade(colour, 0.82), 0.8)


def _trousers(pen: Pen, colour: Colour) -> None:
    pen.shape(_mirrored([(34, 14), (32, 40), (26, 120), (44, 120), (50, 50)]), colour)
    pen.line([(34, 20), (66, 20)], shade(colour, 0.6), 1.5)
    pen.line([(50, 20), (50, 50)], shade(colour, 0.75), 0.8)


def _jeans(pen: Pen, colour: Colour) -> None:
    _trousers(pen, colour)
    pen.line([(36, 24), (42, 34), (34, 38)], shade(colour, 1.4), 0.8)
    pen.line([(64, 24), (58, 34), (66, 38)], shade(colour, 1.4), 0.8)
    pen.line([(28, 112), (44, 112)], shade(colour, 1.4), 0.8)
    pen.line([(56, 112), (72, 112)], shade(colour, 1.4), 0.8)


def _shorts(pen: Pen, colour: Colour) -> None:
    pen.shape(_mirrored([(34, 34), (26, 88), (46, 90), (50, 62)]), colour)
    pen.line([(33, 40), (67, 40)], shade(colour, 0.6), 1.5)


def _jacket(pen: Pen, colour: Colour) -> None:
    pen.shape(_mirrored([(40, 16), (24, 22), (12, 62), (8, 100), (22, 102), (28, 60), (26, 112)]), colour)
    pen.line([(50, 20), (50, 112)], METAL, 1.2)
    pen.shape([(40, 14), (60, 14), (62, 24), (38, 24)], shade(colour, 0.8))
    for x in (32, 58):
        pen.line([(x, 84), (x + 10, 80)], shade(colour, 0.6), 1.2)


def _sneakers(pen: Pen, colour: Colour) -> None:
    pen.shape([(14, 58), (34, 54), (52, 68), (84, 78), (88, 90), (12, 90)], colour)
    pen.shape([(11, 88), (89, 88), (88, 97), (13, 97)], SOLE)
    for step in range(4):
        pen.line([(38 + 7 * step, 64 + 3.5 * step), (44 + 7 * step, 58 + 4 * step)], (250, 250, 250), 1.2)


def _heels(pen: Pen, colour: Colour) -> None:
    pen.shape([(16, 48), (24, 46), (40, 70), (64, 88), (88, 92), (90, 98), (60, 98), (34, 86), (22, 72)], colour)
    pen.shape([(17, 66), (25, 74), (22, 100), (18, 100)], shade(colour, 0.7))


def _sandals(pen: Pen, colour: Colour) -> None:
    pen.shape([(12, 88), (30, 80), (88, 86), (88, 94), (12, 96)], shade(colour, 0.75))
    for points in ([(26, 84), (34, 60), (44, 84)], [(56, 86), (66, 68), (78, 88)]):
        pen.line(list(points), colour, 3.5)


def _handbag(pen: Pen, colour: Colour) -> None:
    pen.oval([(32, 22), (68, 84)], None, shade(colour, 0.6), 2.6)
    pen.shape([(20, 56), (80, 56), (88, 108), (12, 108)], colour)
    pen.shape([(20, 56), (80, 56), (76, 74), (24, 74)], shade(colour, 0.85))
    pen.oval([(46, 69), (54, 79)], (214, 184, 90))


def _backpack(pen: Pen, colour: Colour) -> None:
    pen.oval([(42, 12), (58, 30)], None, shade(colour, 0.6), 2)
    pen.shape(_mirrored([(38, 20), (26, 34), (24, 110)]), colour)
    pen.shape([(32, 66), (68, 66), (68, 104), (32, 104)], shade(colour, 0.82))
    pen.line([(32, 74), (68, 74)], METAL, 1)
    pen.line([(28, 40), (72, 40)], METAL, 1)


def _watch(pen: Pen, colour: Colour) -> None:
    pen.shape([(40, 8), (60, 8), (62, 44), (38, 44)], colour)
    pen.shape([(38, 86), (62, 86), (60, 122), (40, 122)], colour)
    pen.oval([(27, 42), (73, 88)], METAL)
    pen.oval([(32, 47), (68, 83)], (250, 250, 248))
    pen.line([(50, 65), (50, 53)], (30, 30, 30), 1.4)
    pen.line([(50, 65), (59, 69)], (30, 30, 30), 1.4)


def _sunglasses(pen: Pen, colour: Colour) -> None:
    pen.line([(8, 56), (20, 52)], colour, 2.5)
    pen.line([(92, 56), (80, 52)], colour, 2.5)
    for left in (14, 54):
        pen.oval([(left, 52), (left + 32, 82)], (60, 60, 66), colour, 2.6)
    pen.line([(44, 60), (56, 60)], colour, 2.5)


def _cap(pen: Pen, colour: Colour) -> None:
    pen.shape([(22, 72), (26, 48), (42, 36), (58, 36), (72, 48), (76, 72)], colour)
    pen.shape([(58, 68), (76, 66), (96, 78), (94, 84), (62, 78), (22, 76), (22, 70)], shade(colour, 0.8))
    pen.line([(50, 36), (50, 70)], shade(colour, 0.75), 0.8)


def _belt(pen: Pen, colour: Colour) -> None:
    pen.oval([(12, 40), (88, 92)], None, colour, 6)
    pen.shape([(40, 82), (60, 82), (60, 100), (40, 100)], METAL)
    pen.shape([(44, 86), (56, 86), (56, 96), (44, 96)], colour)


def _tie(pen: Pen, colour: Colour) -> None:
    pen.shape([(44, 14), (56, 14), (54, 26), (46, 26)], shade(colour, 0.8))
    pen.shape([(46, 26), (54, 26), (61, 102), (50, 118), (39, 102)], colour)
    for y in range(40, 104, 14):
        pen.line([(43, y + 8), (56, y)], shade(colour, 1.35), 1.6)


def _socks(pen: Pen, colour: Colour) -> None:
    for shift in (0, 38):
        pen.shape(
            [
                (16 + shift, 22),
                (32 + shift, 22),
                (32 + shift, 78),
                (50 + shift, 92),
                (46 + shift, 104),
                (18 + shift, 92),
            ],
            colour,
        )
        pen.line([(16 + shift, 30), (32 + shift, 30)], shade(colour, 0.7), 1.4)


def _scarf(pen: Pen, colour: Colour) -> None:
    pen.shape([(26, 28), (74, 28), (70, 46), (30, 46)], shade(colour, 0.85))
    pen.shape([(32, 44), (48, 44), (44, 112), (28, 112)], colour)
    pen.shape([(54, 44), (68, 44), (74, 100), (58, 100)], shade(colour, 0.92))
    for x in range(29, 45, 4):
        pen.line([(x, 112), (x, 119)], colour, 1)


FIGURES: dict[str, Callable[[Pen, Colour], None]] = {
    "tshirt": _tshirt,
    "shirt": _shirt,
    "dress": _dress,
    "skirt": _skirt,
    "trousers": _trousers,
    "jeans": _jeans,
    "shorts": _shorts,
    "jacket": _jacket,
    "sneakers": _sneakers,
    "heels": _heels,
    "sandals": _sandals,
    "handbag": _handbag,
    "backpack": _backpack,
    "watch": _watch,
    "sunglasses": _sunglasses,
    "cap": _cap,
    "belt": _belt,
    "tie": _tie,
    "socks": _socks,
    "scarf": _scarf,
}
