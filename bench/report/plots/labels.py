"""Where to put the names of points so that no two names touch: geometry only, deterministic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

Point = tuple[float, float]
Segment = tuple[Point, Point]

_RINGS = (5, 9, 14, 20, 28, 38, 50, 64, 80, 100, 125, 155, 190)
_ANGLES = tuple(math.radians(angle) for angle in (0, 180, 90, 270, 45, 315, 135, 225, *range(15, 360, 15)))
_FIRST_RINGS = (0, 4, 7)
"""Where to begin: beside the points; and where these enclose each other, further out, so that lines find a way."""
_NEAR = 14
_CROSSING = 25.0
_DOUBT = 12.0


@dataclass(frozen=True)
class Box:
    """A rectangle, in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Whether the two share area."""
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )

    def within(self, other: Box) -> bool:
        """Whether this lies in `other` altogether."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.bottom >= other.bottom
            and self.top <= other.top
        )

    def grown(self, by: float) -> Box:
        """The box with a margin on every side."""
        return Box(self.left - by, self.bottom - by, self.right + by, self.top + by)

    def nearest(self, point: Point) -> Point:
        """The point of the box that is closest to `point`."""
        return (min(max(point[0], self.left), self.right), min(max(point[1], self.bottom), self.top))

    def crossed_by(self, segment: Segment) -> bool:
        """Whether the segment runs through the box. Source: Liang and Barsky's clipping."""
        (x, y), (x_end, y_end) = segment
        enter, leave = 0.0, 1.0
        for run, gap in (
            (x - x_end, x - self.left),
            (x_end - x, self.right - x),
            (y - y_end, y - self.bottom),
            (y_end - y, self.top - y),
        ):
            if run == 0:
                if gap < 0:
                    return False
            elif run < 0:
                enter = max(enter, gap / run)
            else:
                leave = min(leave, gap / run)
        return enter < leave


@dataclass(frozen=True)
class Placed:
    """A name's place, and the line that leads to it where it is not beside its point."""

    box: Box
    leader: Segment | None


def place(
    points: Sequence[Point],
    sizes: Sequence[tuple[float, float]],
    frame: Box,
    *,
    taken: Sequence[Box] = (),
    lines: Sequence[Segment] = (),
    radius: float = 5.0,
    scale: float = 1.0,
) -> list[Placed] | None:
    """Places for the names of points: inside the frame, on no point, no other name and no leading line.

    The points with the least room choose first; each name goes where it is nearest to its point and crosses
    the fewest of `lines`.

    Args:
        points: (N,) centres of the markers, in pixels.
        sizes: (N,) width and height of each name, in pixels.
        frame: what names may not leave.
        taken: boxes that names must keep off.
        lines: what names had better keep off.
        radius: of a marker, in pixels.
        scale: pixels per point, for the distances.

    Returns:
        (N,) places, or None where there is no room for some name.
    """
    markers = [Box(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    order = sorted(range(len(points)), key=lambda index: (-_neighbours(points, index, 60 * scale), index))
    for first in _FIRST_RINGS:
        placed: dict[int, Placed] = {}
        for index in order:
            candidates = _candidates(points[index], sizes[index], radius, scale, _RINGS[first:])
            spot = _best(candidates, points, index, frame, [*taken, *markers], list(placed.values()), lines, 6 * scale)
            if spot is None:
                break
            placed[index] = spot
        else:
            return [placed[index] for index in range(len(points))]
    return None


def _best(
    candidates: Iterable[tuple[float, Placed]],
    points: Sequence[Point],
    index: int,
    frame: Box,
    taken: Sequence[Box],
    placed: Sequence[Placed],
    lines: Sequence[Segment],
    margin: float,
) -> Placed | None:
    """The cheapest place that fits, of candidates by rising cost."""
    best: tuple[float, Placed] | None = None
    for near, candidate in candidates:
        if best is not None and near >= best[0]:
            break
        cost, spot = near, candidate
        if _in_doubt(spot.box, points, index, margin):
            # Nearer to another point than to its own, or as near: a line says whose name it is.
            cost += _DOUBT
            spot = Placed(spot.box, (points[index], spot.box.nearest(points[index])))
        if not _fits(spot, frame, taken, placed):
            continue
        cost += _CROSSING * sum(spot.box.crossed_by(line) for line in lines)
        if best is None or cost < best[0]:
            best = (cost, spot)
    return best[1] if best else None


def _neighbours(points: Sequence[Point], index: int, reach: float) -> int:
    return sum(math.dist(points[index], other) < reach for other in points)


def _in_doubt(box: Box, points: Sequence[Point], index: int, margin: float) -> bool:
    gaps = [math.dist(box.nearest(point), point) for point in points]
    return any(gap < gaps[index] + margin for other, gap in enumerate(gaps) if other != index)


def _candidates(
    point: Point, size: tuple[float, float], radius: float, scale: float, rings: Sequence[int]
) -> Iterator[tuple[float, Placed]]:
    """Places around a point from near to far, each with its cost."""
    width, height = size
    for ring in rings:
        for turn, angle in enumerate(_ANGLES):
            away = radius + (ring - _RINGS[0] + 1) * scale
            x = point[0] + math.cos(angle) * (away + width / 2)
            y = point[1] + math.sin(angle) * (away + height / 2)
            box = Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            leader = (point, box.nearest(point)) if ring > _NEAR else None
            yield ring + turn * 0.05, Placed(box, leader)


def _fits(candidate: Placed, frame: Box, taken: Sequence[Box], placed: Sequence[Placed]) -> bool:
    box, leader = candidate.box, candidate.leader
    if not box.within(frame) or any(box.meets(other) for other in taken):
        return False
    for other in placed:
        if box.meets(other.box.grown(1.0)) or (other.leader and box.crossed_by(other.leader)):
            return False
        if leader and other.box.crossed_by(leader):
            return False
    return True
