"""Cars, vans, trucks and buses: a side view pulled across the width, seen from any direction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np

from fuseloop.datasets.synthesis.canvas import Mark, Points, ellipse, paint
from fuseloop.datasets.synthesis.conditions import RGB
from fuseloop.datasets.synthesis.ground import warm_ground
from fuseloop.datasets.synthesis.stage import Stage
from fuseloop.datasets.synthesis.street import Lamp

CAR = 1
CAR_BOX = 2
BODIES: list[RGB] = [
    (226, 228, 230), (30, 32, 36), (150, 154, 160), (92, 96, 102), (132, 26, 30), (32, 58, 120), (206, 206, 200),
    (60, 84, 70), (190, 160, 60), (240, 240, 240), (48, 50, 58), (110, 130, 150),
]  # fmt: skip


class Shape(NamedTuple):
    """The side view of a kind of vehicle, front at 0.

    Attributes:
        length: Metres.
        width: Metres.
        height: Metres.
        profile: Outline from the front bumper over the roof to the rear one, in shares of length and height.
        glass: Which edges of the profile are glass.
        belt: Height of the lower edge of the side windows, as a share.
        windows: Side windows as outlines in shares of length and height.
        axles: Their places, as shares of length.
        radius: Radius of the wheels in metres.
        lamps: Height of the lamps, as a share.
    """

    length: float
    width: float
    height: float
    profile: tuple[tuple[float, float], ...]
    glass: tuple[int, ...]
    belt: float
    windows: tuple[tuple[tuple[float, float], ...], ...]
    axles: tuple[float, ...] = (0.19, 0.80)
    radius: float = 0.32
    lamps: float = 0.48


SHAPES = {
    "sedan": Shape(
        4.5, 1.78, 1.45,
        ((0, 0.17), (0, 0.42), (0.03, 0.53), (0.28, 0.63), (0.42, 0.97), (0.55, 1), (0.7, 0.98), (0.86, 0.68),
         (0.98, 0.63), (1, 0.45), (1, 0.2)),
        (3, 6), 0.64,
        (((0.335, 0.66), (0.44, 0.92), (0.55, 0.94), (0.55, 0.66)),
         ((0.57, 0.66), (0.57, 0.94), (0.69, 0.92), (0.79, 0.68))),
    ),
    "hatch": Shape(
        3.9, 1.7, 1.52,
        ((0, 0.17), (0, 0.42), (0.03, 0.52), (0.25, 0.63), (0.41, 0.96), (0.6, 1), (0.88, 0.95), (0.98, 0.62),
         (1, 0.45), (1, 0.2)),
        (3, 6), 0.63,
        (((0.31, 0.65), (0.43, 0.91), (0.56, 0.94), (0.56, 0.65)),
         ((0.58, 0.65), (0.58, 0.94), (0.84, 0.9), (0.88, 0.67))),
    ),
    "suv": Shape(
        4.6, 1.85, 1.72,
        ((0, 0.2), (0, 0.48), (0.04, 0.58), (0.25, 0.65), (0.38, 0.97), (0.6, 1), (0.93, 0.97), (0.98, 0.66),
         (1, 0.5), (1, 0.22)),
        (3, 6), 0.64,
        (((0.31, 0.67), (0.41, 0.92), (0.54, 0.94), (0.54, 0.67)),
         ((0.56, 0.67), (0.56, 0.94), (0.74, 0.93), (0.74, 0.67)),
         ((0.76, 0.68), (0.76, 0.92), (0.9, 0.9), (0.93, 0.68))),
        radius=0.37,
    ),
    "van": Shape(
        4.7, 1.8, 2.0,
        ((0, 0.16), (0, 0.4), (0.05, 0.5), (0.2, 0.95), (0.3, 1), (0.97, 0.99), (1, 0.52), (1, 0.16)),
        (2, 5), 0.52,
        (((0.12, 0.54), (0.22, 0.9), (0.4, 0.92), (0.4, 0.54)),
         ((0.43, 0.54), (0.43, 0.92), (0.66, 0.92), (0.66, 0.54)),
         ((0.69, 0.54), (0.69, 0.92), (0.94, 0.91), (0.95, 0.54))),
    ),
    "truck": Shape(
        6.6, 2.2, 2.9,
        ((0, 0.14), (0, 0.38), (0.03, 0.72), (0.06, 0.78), (0.24, 0.78), (0.25, 1), (1, 1), (1, 0.2)),
        (1,), 0.42,
        (((0.05, 0.44), (0.07, 0.72), (0.18, 0.72), (0.18, 0.44)),),
        axles=(0.14, 0.76), radius=0.42, lamps=0.25,
    ),
    "bus": Shape(
        10.5, 2.5, 3.1,
        ((0, 0.1), (0, 0.4), (0.02, 0.97), (0.04, 1), (1, 1), (1, 0.4), (1, 0.1)),
        (1, 4), 0.4,
        tuple(((a, 0.45), (a, 0.82), (a + 0.12, 0.82), (a + 0.12, 0.45)) for a in (0.04, 0.18, 0.32, 0.46, 0.6, 0.74)),
        axles=(0.2, 0.74), radius=0.48, lamps=0.22,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Vehicle:
    """One vehicle as placed.

    Attributes:
        shape: Its kind.
        x: Middle of its footprint.
        z: Middle of its footprint.
        yaw: Heading in radians: 0 drives towards the camera, pi away from it.
        colour: Body.
        warmth: 0 when it stood for hours, 1 when it has just driven far.
        contrast: Degrees between a cold body and the road; near 0 it is nearly invisible in infrared.
        lights: Whether its lamps burn.
    """

    shape: Shape
    x: float
    z: float
    yaw: float
    colour: RGB
    warmth: float
    contrast: float
    lights: bool

    def place(self, across: Points, up: Points | float, along: Points) -> Points:
        """Points of the vehicle, N, to the world, N×3: across it, up, and along it from front to rear."""
        sine, cosine = np.sin(self.yaw), np.cos(self.yaw)
        points = np.empty((np.size(along), 3))
        points[:, 0] = self.x + across * cosine + along * sine
        points[:, 1] = up
        points[:, 2] = self.z - across * sine + along * cosine
        return points

    def footprint(self, grow: float = 0.0) -> Points:
        """The corners on the ground, 4×3, with a margin in metres."""
        half, reach = self.shape.width / 2 + grow, self.shape.length / 2 + grow
        return self.place(np.array([-half, half, half, -half]), 0.0, np.array([-reach, -reach, reach, reach]))


Part: TypeAlias = tuple[str | int, ...]


@lru_cache(maxsize=len(SHAPES))
def _model(shape: Shape) -> tuple[Points, dict[Part, slice]]:
    """The points of all parts of a vehicle, M×3 across, up and along it, and which belong to which part.

    Parts are named by a word, a number where there are several, and their side (-1 left, 1 right) or end (-1 front,
    1 rear).
    """
    half, tall, long = shape.width / 2, shape.height, shape.length
    top, lean = shape.lamps * tall, 0.2 if long < 5 else 0.0  # cabins of cars lean inwards
    points: list[Points] = []
    parts: dict[Part, slice] = {}

    def add(part: Part, across: Points, up: Points, along: Points) -> None:
        start = sum(map(len, points))
        points.append(np.stack([across, up, along], axis=1))
        parts[part] = slice(start, start + len(up))

    def on_side(part: Part, side: int, outline: Points, inset: float = 0.0) -> None:
        """Adds points (share of the length, share of the height) of one side."""
        width = half * (1 - lean * np.clip((outline[:, 1] - shape.belt) / (1 - shape.belt), 0, 1)) - inset
        add((*part, side), side * width, outline[:, 1] * tall, (outline[:, 0] - 0.5) * long)

    def on_end(part: Part, end: int, left: float, low: float, right: float, high: float) -> None:
        """Adds a rectangle in metres of one end."""
        across, up = np.array([left, right, right, left]), np.array([high, high, low, low])
        add((*part, end), across, up, np.full(4, end * 0.501 * long))

    band = np.array([(0.03, 0.17), (0.97, 0.17), (0.97, 0.33), (0.03, 0.33)])
    for side in (-1, 1):
        on_side(("profile",), side, np.array(shape.profile))
        on_side(("underside",), side, band, 0.1)
        on_side(("sill",), side, band)
        for index, window in enumerate(shape.windows):
            on_side(("window", index), side, np.array(window))
        for index, axle in enumerate(shape.axles):
            disc = ellipse(axle, shape.radius / tall, shape.radius / long, shape.radius / tall)
            on_side(("wheel", index), side, disc)
            on_side(("inner wheel", index), side, disc, 0.24)
    for end in (-1, 1):
        for index, side in enumerate((-1, 1)):
            on_end(("lamp", index), end, side * 0.95 * half, top - 0.16, side * 0.62 * half, top)
        on_end(("bumper",), end, -0.98 * half, 0.24, 0.98 * half, 0.4)
        on_end(("plate",), end, -0.26, 0.42, 0.26, 0.53)
        on_end(("grille",), end, -0.55 * half, top - 0.18, 0.55 * half, top - 0.03)
        on_end(("intake",), end, -0.75 * half, 0.27, 0.75 * half, 0.4)
        on_end(("seam",), end, -0.03, 0.5, 0.03, 0.95 * tall)
        on_end(("exhaust",), end, 0.45 * half, 0.22, 0.6 * half, 0.29)
    return np.concatenate(points), parts


class _Body:
    """One vehicle in the view of one camera.

    Attributes:
        side: The side that can be seen: -1 left, 1 right.
        end: The end that can be seen: -1 front, 1 rear.
        is_large: Whether its details are larger than a pixel.
    """

    def __init__(self, stage: Stage, vehicle: Vehicle) -> None:
        shape = vehicle.shape
        local, self.parts = _model(shape)
        self.world = vehicle.place(local[:, 0], local[:, 1], local[:, 2])
        self.pixels = stage.camera.project(self.world)
        self.profile = local[self.parts["profile", 1]]
        self.eye = np.array([0, stage.camera.eye, 0])
        self.rearwards = np.array([np.sin(vehicle.yaw), 0, np.cos(vehicle.yaw)])
        x, z = vehicle.x, vehicle.z
        self.side = 1 if x * np.cos(vehicle.yaw) < z * np.sin(vehicle.yaw) else -1
        self.end = -1 if x * np.sin(vehicle.yaw) + z * np.cos(vehicle.yaw) > 0 else 1
        self.is_large = stage.camera.focal * shape.height / z > 18

    def outline(self, *part: str | int) -> Points:
        """A part (see `_model`) as pixels."""
        return self.pixels[self.parts[part]]

    def faces(self) -> list[tuple[int, Points, float]]:
        """The visible faces across the width, far to near: edge of the profile, outline, and how much it looks up."""
        left, right = self.parts["profile", -1], self.parts["profile", 1]
        to_middle = (self.world[left] + self.world[right]) / 2 - self.eye
        to_middle = (to_middle[:-1] + to_middle[1:]) / 2
        rise, run = np.diff(self.profile[:, 1]), np.diff(self.profile[:, 2])
        outward = np.array([0, 1, 0]) * run[:, None] - self.rearwards * rise[:, None]
        seen = np.flatnonzero((outward * to_middle).sum(axis=1) < 0)
        upward = np.maximum(run, 0) / (np.abs(rise) + np.abs(run))
        far_first = seen[np.argsort(-(to_middle[seen] ** 2).sum(axis=1))]
        ends, others = self.pixels[left], self.pixels[right]
        return [
            (int(i), np.stack([ends[i], others[i], others[i + 1], ends[i + 1]]), float(upward[i])) for i in far_first
        ]


def draw_vehicle(stage: Stage, vehicle: Vehicle, light: float) -> list[Lamp]:
    """Draws a vehicle and returns its burning headlamps that face the camera."""
    canvas, _, conditions, rng = stage
    shape, body, warmth = vehicle.shape, _Body(stage, vehicle), vehicle.warmth
    if warmth > 0.3:
        warm_ground(stage, stage.camera.project(vehicle.footprint()), 8 * warmth)
    mark = canvas.begin(CAR, vehicle.z)
    metal = conditions.road + vehicle.contrast + 4.5 * warmth
    cabin = metal - rng.uniform(0.5, 8) + 2 * warmth  # panes mirror the cold sky, or a wall
    glass: RGB = (30, 36, 42) if conditions.night else (60, 72, 82)
    tyre = paint((26, 26, 27), conditions.road + 1 + 9 * warmth, light)

    for index in range(len(shape.axles)):
        for side in (-body.side, body.side):
            tread = hull(body.outline("wheel", index, side), body.outline("inner wheel", index, side))
            canvas.fill(tread, tyre, mark)
    underside = hull(body.outline("underside", -1), body.outline("underside", 1))
    canvas.fill(underside, paint((16, 16, 17), metal + 6 * warmth), mark)

    for edge, outline, upward in body.faces():
        hood = 0 < edge < shape.glass[0]
        ink = paint(vehicle.colour, metal + (9 * warmth if hood else 0), light * (0.78 + 0.35 * upward))
        canvas.fill(outline, ink, mark)
        if edge in shape.glass:
            pane = outline + (outline.mean(axis=0) - outline) * 0.1
            canvas.fill(pane, paint(glass, cabin, light))
            if body.is_large:  # a reflection
                r, g, b = glass
                canvas.fill(_part(pane, 0.15, 0.5, 0.3, 0.9), paint((r + 22, g + 24, b + 26), cabin, light))

    sunlit = 0.92 if not conditions.sunny else (1.1 if _faces_sun(stage, body) else 0.7)
    canvas.fill(body.outline("profile", body.side), paint(vehicle.colour, metal + 0.5, light * sunlit), mark)
    panes = [body.outline("window", index, body.side) for index in range(len(shape.windows))]
    canvas.fill_all(np.array(panes), paint(glass, cabin + 1, light * 0.9))
    if body.is_large:
        sill = paint(vehicle.colour, metal + 1.5 * warmth, light * sunlit * 0.72)
        canvas.fill(body.outline("sill", body.side), sill)
    hub = paint((120, 122, 126), conditions.road + 2 + 12 * warmth, light * 0.8)
    for index in range(len(shape.axles)):
        disc = body.outline("wheel", index, body.side)
        canvas.fill(disc, tyre, mark)
        canvas.fill(disc + (disc.mean(axis=0) - disc) * 0.42, hub)
    lamps = _draw_end(stage, vehicle, body, metal, mark, light)
    canvas.end(mark, CAR_BOX)
    return lamps


def _draw_end(stage: Stage, vehicle: Vehicle, body: _Body, metal: float, mark: Mark, light: float) -> list[Lamp]:
    """Draws lamps, plate and grille of the front, or lamps, plate and exhaust of the rear."""
    canvas, end, warmth = stage.canvas, body.end, vehicle.warmth
    lamps = np.stack([body.outline("lamp", index, end) for index in (0, 1)])
    if body.is_large:
        bumper = paint(vehicle.colour, metal - 0.5, 0.55 * light)
        canvas.fill(body.outline("bumper", end), bumper)
        if vehicle.shape.length > 5 and end == 1:  # the doors of a load
            canvas.fill(body.outline("seam", end), bumper)
        canvas.fill(body.outline("plate", end), paint((216, 214, 196), metal, light))
    if end == -1:
        grille = paint((22, 22, 24), metal + 14 * warmth, light)
        canvas.fill_all(np.stack([body.outline("grille", end), body.outline("intake", end)]), grille)
        if not vehicle.lights:
            canvas.fill_all(lamps, paint((220, 222, 220), metal, light))
            return []
        canvas.fill_all(lamps, paint((255, 248, 226), metal + 8), mark._replace(glow=255))
        power = stage.rng.uniform(0.15, 0.6) if stage.conditions.night else 0.05
        return [Lamp(x, y, vehicle.z, y, power, (1.0, 0.97, 0.88)) for x, y in lamps.mean(axis=1).tolist()]
    if vehicle.lights:
        glow = 200 if stage.chance(0.4) else 70
        canvas.fill_all(lamps, paint((255, 30, 22), metal + 4), mark._replace(glow=glow))
    else:
        canvas.fill_all(lamps, paint((150, 24, 24), metal, light))
    if warmth > 0.2:
        canvas.fill(body.outline("exhaust", end), paint((40, 40, 40), metal + 30 * warmth, light), mark)
    return []


def _faces_sun(stage: Stage, body: _Body) -> bool:
    """Whether the visible side looks to the half of the sky with the sun."""
    return bool(body.side * body.rearwards[2] * stage.conditions.sun_side > 0)


def _part(face: Points, left: float, right: float, low: float, high: float) -> Points:
    """A slanted part of a face with four corners, by shares of its width at the bottom and of its height."""
    near, far = face[0] + (face[1] - face[0]) * [[left], [right]], face[3] + (face[2] - face[3]) * [[left], [right]]
    (a, b), (c, d) = near + (far - near) * low, near + (far - near) * high
    lean = (face[2] - face[3]) * 0.12
    return np.array([a, b, d + lean, c + lean])


def hull(first: Points, second: Points) -> Points:
    """The convex outline around two polygons."""
    both = np.concatenate([first, second]).clip(-1e5, 1e5).astype(np.float32)
    return cv2.convexHull(both)[:, 0].astype(np.float64)
