"""What a scene contains and where: places things on the ground, then draws them from far to near."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import hypot
from typing import NamedTuple

import numpy as np

from fuseloop.datasets.synthesis import backdrop, ground, people, street, vehicles
from fuseloop.datasets.synthesis.backdrop import Wall
from fuseloop.datasets.synthesis.canvas import Camera, Points, ellipse
from fuseloop.datasets.synthesis.ground import Road
from fuseloop.datasets.synthesis.sensors import Smoke
from fuseloop.datasets.synthesis.stage import Stage
from fuseloop.datasets.synthesis.street import Lamp
from fuseloop.datasets.synthesis.vehicles import SHAPES, Vehicle

PASSENGER_CARS = ("sedan", "hatch", "suv", "van")


class Prop(NamedTuple):
    """Something that stands on the ground.

    Attributes:
        x: Its place.
        z: Its place.
        draw: Draws it in a share of the full light and returns the lamps that burn on it.
        shadow: Outline in pixels of the shadow that it casts in the sun.
        contact: Outline in pixels of the dark ground right under it.
        room: Radius in metres that no other prop may enter.
        target: Whether it is a car, a person or a bicycle.
        leafy: Whether its shadow has holes.
    """

    x: float
    z: float
    draw: Callable[[float], list[Lamp] | None]
    shadow: Points | None = None
    contact: Points | None = None
    room: float = 0.0
    target: bool = False
    leafy: bool = False


def sample_camera(rng: np.random.Generator, height: int, width: int) -> Camera:
    """A camera in a car or on a mast."""
    return Camera(
        focal=rng.uniform(0.85, 1.5) * float(np.sqrt(height * width)),
        centre=rng.uniform(0.3, 0.7) * width,
        horizon=rng.uniform(0.34, 0.52) * height,
        eye=rng.uniform(1.3, 2.4),
    )


def sample_road(stage: Stage) -> Road:
    """A road that ends at a wall of houses or trees, or goes on to the horizon."""
    camera, rng = stage.camera, stage.rng
    return Road(
        left=-rng.uniform(2.2, 7.5),
        right=rng.uniform(2.2, 7.5),
        bend=0.0 if stage.chance(0.5) else rng.uniform(-0.006, 0.006),
        start=0.9 * camera.focal * camera.eye / (stage.canvas.height - camera.horizon),
        stop=rng.uniform(24, 45) if stage.chance(0.3) else 160.0,
    )


def draw_scene(stage: Stage) -> tuple[list[Lamp], list[Prop]]:
    """Draws everything and returns the burning lamps and the targets, near to far."""
    canvas, camera, conditions, rng = stage
    road = sample_road(stage)
    closed = road.stop < 100
    backdrop.draw_sky(stage)
    if not closed and stage.chance(0.7):
        backdrop.draw_skyline(stage)
    if stage.chance(0.85):
        backdrop.draw_treeline(stage, rng.uniform(60, 110), 1.0)
    ground.draw_ground(stage, road)
    ground.draw_markings(stage, road)
    ground.draw_kerbs(stage, road)
    if stage.chance(0.1):
        ground.draw_bump(stage, road)

    props = _spread([*_vehicles(stage, road), *_people(stage, road), *_furniture(stage, road)])
    sides = [*_side(stage, road, -1), *_side(stage, road, 1)]
    if closed:
        sides += _end(stage, road)
    everything = sorted(props + sides, key=lambda prop: -prop.z)
    shadows = ground.Shadows(
        houses=[prop.shadow for prop in sides if prop.shadow is not None and not prop.leafy],
        trees=[prop.shadow for prop in sides if prop.shadow is not None and prop.leafy],
        things=[prop.shadow for prop in props if prop.shadow is not None],
        contacts=[prop.contact for prop in props if prop.contact is not None],
    )
    light = ground.shade_ground(stage, shadows)
    if stage.chance(0.2):  # a car stood here until just now, and its shade or warmth stayed
        x, z = rng.uniform(road.left, road.right), rng.uniform(1.2, 4) * road.start
        trace = road.strip(camera, x - 0.9, x + 0.9, z, z + 4.2)
        ground.warm_ground(stage, trace, -3.0 if conditions.sunny else 2.0)
    lamps: list[Lamp] = []
    for prop in everything:
        column, row = camera.at(prop.x, 0, prop.z)
        inside = 0 <= column < canvas.width and 0 <= row < canvas.height
        lamps += prop.draw(float(light[int(row), int(column)]) if inside else 1.0) or []
    return lamps, [prop for prop in reversed(everything) if prop.target]


def sample_smoke(stage: Stage, targets: list[Prop]) -> list[Smoke]:
    """A cloud before one of the targets, in some scenes."""
    camera, rng = stage.camera, stage.rng
    if not targets or not stage.chance(0.16):
        return []
    target = stage.pick(targets)
    z = max(0.8 * target.z, target.z - 3)
    scale = camera.focal / z
    column, row = camera.at(target.x + rng.uniform(-0.5, 0.5), rng.uniform(0.6, 1.4), z)
    across = rng.uniform(1.2, 4) * scale
    return [Smoke(column, row, across, across * rng.uniform(0.5, 0.9), z, rng.uniform(0.75, 1.0))]


def _spread(props: list[Prop]) -> list[Prop]:
    """Leaves out props that would stand inside others; the first come first."""
    kept: list[Prop] = []
    for prop in props:
        if all(hypot(prop.x - other.x, prop.z - other.z) > prop.room + other.room for other in kept):
            kept.append(prop)
    return kept


def _depth(stage: Stage, near: float, far: float) -> float:
    """A depth, with the near ones as likely as they look large."""
    return float(np.exp(stage.rng.uniform(np.log(min(near, far)), np.log(far))))


def _vehicles(stage: Stage, road: Road) -> Iterator[Prop]:
    """Traffic in the lanes, cars parked along the kerb or side by side, and now and then one that crosses."""
    rng, conditions = stage.rng, stage.conditions
    far = min(road.stop - 4, 70.0)
    has_lot, lot_side = stage.chance(0.15), -1 if stage.chance(0.5) else 1
    lot_start = rng.uniform(1.3, 2.2) * road.start + 2
    for index in range(stage.draw({0: 0.12, 1: 0.2, 2: 0.24, 3: 0.2, 4: 0.14, 6: 0.1})):
        manner = stage.draw({"ahead": 0.28, "oncoming": 0.24, "parked": 0.42, "crossing": 0.06})
        manner = "lot" if has_lot and stage.chance(0.8) else manner
        parked = manner in ("parked", "lot")
        z = lot_start + 2.7 * index if manner == "lot" else _depth(stage, 1.1 * road.start + 3.5, far)
        side = lot_side if manner == "lot" else -1 if stage.chance(0.5) else 1
        along = float(np.arctan(2 * road.bend * z))
        if manner == "lot":
            across = (road.right + 2.8) if side > 0 else (road.left - 2.8)
            yaw = side * np.pi / 2 + rng.normal(0, 0.06) + (np.pi if stage.chance(0.3) else 0)
        elif manner == "parked":
            across = (road.right - 1.1) if side > 0 else (road.left + 1.1)
            yaw = along + (np.pi if stage.chance(0.7) else 0) + rng.normal(0, 0.04)
        elif manner == "crossing":
            across, yaw = rng.uniform(road.left, road.right), side * np.pi / 2 + rng.normal(0, 0.1)
        elif manner == "ahead":
            across, yaw = rng.uniform(road.middle, road.right - 1.2), along + np.pi + rng.normal(0, 0.05)
        else:
            across, yaw = rng.uniform(road.left + 1.2, road.middle), along + rng.normal(0, 0.05)
        large = manner != "lot" and stage.chance(0.12)
        vehicle = Vehicle(
            shape=SHAPES[stage.pick(("truck", "bus") if large else PASSENGER_CARS)],
            x=road.x(across, z),
            z=z,
            yaw=yaw,
            colour=stage.pick(vehicles.BODIES),
            warmth=rng.uniform(0, 0.05) if parked and stage.chance(0.75) else rng.uniform(0.4, 1.0),
            contrast=rng.normal(0, 0.3) if stage.chance(0.65) else rng.uniform(-4, 2),
            lights=not parked and (conditions.night or stage.chance(0.2)),
        )
        yield _vehicle(stage, vehicle, room=1.2 if manner == "lot" else 0.42 * vehicle.shape.length)


def _vehicle(stage: Stage, vehicle: Vehicle, room: float) -> Prop:
    """A vehicle as a prop."""
    camera = stage.camera
    contact = camera.project(vehicle.footprint(0.12))
    tip = vehicle.footprint() - (stage.conditions.sun_side * 0.7 * vehicle.shape.height, 0, 0.2)
    shadow = vehicles.hull(camera.project(vehicle.footprint()), camera.project(tip))
    draw = partial(vehicles.draw_vehicle, stage, vehicle)
    return Prop(vehicle.x, vehicle.z, draw, shadow, contact, room, target=True)


def _people(stage: Stage, road: Road) -> Iterator[Prop]:
    """People on the pavements and across the road, alone and in groups, and bicycles with and without riders."""
    rng = stage.rng
    far = min(road.stop - 3, 50.0)
    for _ in range(stage.draw({0: 0.14, 1: 0.3, 2: 0.26, 3: 0.18, 4: 0.12})):
        z = _depth(stage, 1.05 * road.start + 2, far)
        place = rng.random()
        if place < 0.35:
            across = rng.uniform(road.left, road.right)
        else:
            across = road.left - rng.uniform(0.4, 2.8) if stage.chance(0.5) else road.right + rng.uniform(0.4, 2.8)
        for member in range(stage.draw({1: 0.66, 2: 0.24, 3: 0.1})):
            yield _person(stage, road.x(across, z) + member * rng.uniform(0.55, 0.8), z + rng.uniform(-0.3, 0.3))
    for _ in range(stage.draw({0: 0.62, 1: 0.28, 2: 0.1})):
        z = _depth(stage, 1.05 * road.start + 2, min(far, 35))
        ridden = stage.chance(0.6)
        edge = road.left - 0.8 if stage.chance(0.5) else road.right + 0.8
        across = rng.uniform(road.left, road.right) if ridden else edge
        yield _bicycle(stage, road.x(across, z), z, ridden)


def _person(stage: Stage, x: float, z: float) -> Prop:
    """A person as a prop."""
    person = people.sample_person(stage)
    shadow = people.shadow_outline(stage, x, z, person.tall)
    scale = stage.camera.focal / z
    contact = ellipse(*stage.camera.at(x, 0, z), 0.3 * scale, 0.06 * scale)
    return Prop(x, z, partial(people.draw_person, stage, person, x, z), shadow, contact, 0.25, target=True)


def _bicycle(stage: Stage, x: float, z: float, ridden: bool) -> Prop:
    """A bicycle as a prop."""
    rider = people.sample_person(stage) if ridden else None
    turn, ahead = stage.rng.uniform(0, 1), -1 if stage.chance(0.5) else 1
    shadow = people.shadow_outline(stage, x, z, 1.6 if ridden else 0.9)
    draw = partial(people.draw_bicycle, stage, rider, x, z, turn, ahead)
    return Prop(x, z, draw, shadow, room=0.7, target=True)


def _furniture(stage: Stage, road: Road) -> Iterator[Prop]:
    """Lamps, signs, signals, and what keeps cars where they should be."""
    rng = stage.rng
    far = min(road.stop - 2, 60.0)

    def beside(margin: float) -> float:
        return road.left - margin if stage.chance(0.5) else road.right + margin

    def prop(across: float, z: float, draw: Callable[..., list[Lamp] | None], *details: object) -> Prop:
        x = road.x(across, z)
        return Prop(x, z, partial(draw, stage, x, z, *details), room=0.2)

    if stage.chance(0.75):
        glow, across = stage.pick(street.LAMP_COLOURS), beside(0.6)
        for z in np.arange(rng.uniform(8, 16), far, rng.uniform(12, 24)):
            yield prop(across, float(z), street.draw_lamp, glow)
    if stage.chance(0.15):
        yield prop(beside(0.8), _depth(stage, 9, 35), street.draw_traffic_light)
    for _ in range(rng.integers(0, 3)):
        yield prop(beside(0.7), _depth(stage, 6, far), street.draw_sign)
    if stage.chance(0.22):
        colour, across, drift = stage.pick(street.CONES), rng.uniform(road.left, road.right), rng.uniform(-0.8, 0.8)
        start, gap = 1.1 * road.start + rng.uniform(0, 6), rng.uniform(1.2, 3.5)
        for index in range(rng.integers(1, 7)):
            yield prop(across + drift * index, start + gap * index, street.draw_cone, colour)
    if stage.chance(0.18):
        kind, across = int(rng.integers(3)), beside(0.3)
        start, gap = 1.1 * road.start + rng.uniform(0, 9), rng.uniform(1.7, 3)
        for index in range(rng.integers(1, 6)):
            yield prop(across, start + gap * index, street.draw_car_stop, kind)
    start = 1.2 * road.start + 3
    if stage.chance(0.12) and start + 2 < far:
        across, stop = beside(0.5), min(start + rng.uniform(8, 40), far)
        yield Prop(road.x(across, stop), stop, partial(street.draw_guardrail, stage, across, road.bend, start, stop))


def _side(stage: Stage, road: Road, side: int) -> Iterator[Prop]:
    """What lines the road on its left (-1) or right (1): houses, trees, bushes, or nothing."""
    rng = stage.rng
    character = stage.draw({"houses": 0.34, "trees": 0.32, "mixed": 0.26, "open": 0.08})
    edge = (road.right if side > 0 else -road.left) + rng.uniform(2.5, 5.5)
    far = min(road.stop, 80.0)
    if character in ("houses", "mixed"):
        z = rng.uniform(-6, 8)
        while z < far:
            long, deep = rng.uniform(9, 26), rng.uniform(8, 14)
            start, stop = max(z, 1.0), min(z + long, far + 10)
            if stop > start + 2:
                back = edge + rng.uniform(0, 2) + (3 if character == "mixed" else 0)
                yield _building(stage, road, side * back, side * deep, start, stop)
            z += long + rng.uniform(0, 10)
    if character in ("trees", "mixed"):
        z = rng.uniform(4, 12)
        while z < min(far, 60):
            yield _tree(stage, road.x(side * (edge - rng.uniform(0, 1.5)), z), z)
            z += rng.uniform(3, 12) * (1 + z / 40)
    if stage.chance(0.1 if character == "houses" else 0.4):
        x, start, stop = side * (edge - 1.2), rng.uniform(4, 10), min(rng.uniform(14, 45), far)
        wall = Wall(road.x(x, start), start, road.x(x, stop), stop)
        yield Prop(wall.x1, stop, partial(backdrop.draw_hedge, stage, wall, rng.uniform(0.5, 1.1)))
    if stage.chance(0.15):
        yield Prop(side * edge, 66.0, partial(street.draw_wires, stage, side * (edge - 1)))


def _building(stage: Stage, road: Road, x: float, deep: float, start: float, stop: float) -> Prop:
    """A house along the road between two depths; its shadow falls across the road when the sun is behind it."""
    tall = stage.rng.uniform(5, 22)
    front = Wall(road.x(x, start), start, road.x(x, stop), stop)
    side = Wall(front.x0 + deep, start, front.x0, start) if start > 4 else None
    reach = -np.sign(x) * min(0.5 * tall, abs(x) + 3)
    corners = [(front.x0, 0, start), (front.x0 + reach, 0, start), (front.x1 + reach, 0, stop), (front.x1, 0, stop)]
    shadow = stage.camera.project(np.array(corners)) if x * stage.conditions.sun_side > 0 else None
    return Prop(front.x1, stop, partial(backdrop.draw_building, stage, front, side, tall), shadow)


def _tree(stage: Stage, x: float, z: float) -> Prop:
    """A tree as a prop."""
    tall = stage.rng.uniform(4, 11)
    tip = x - stage.conditions.sun_side * tall * 0.5
    on_ground = np.insert(ellipse(tip, z, 0.45 * tall, 0.4 * tall), 1, 0, axis=1)
    shadow = stage.camera.project(on_ground)
    return Prop(x, z, partial(backdrop.draw_tree, stage, x, z, tall), shadow, leafy=True)


def _end(stage: Stage, road: Road) -> Iterator[Prop]:
    """What closes a road that ends: house fronts, or trees, and perhaps bushes before them."""
    rng, z = stage.rng, road.stop
    if stage.chance(0.6):
        x, shine = road.x(-30, z) + rng.uniform(-5, 15), rng.uniform(0.6, 1.0)
        while x < 40:
            wall = Wall(x, z, x + rng.uniform(10, 30), z)
            tall, colour = rng.uniform(5, 20), stage.pick(backdrop.WALLS)
            r, g, b = (channel * shine for channel in colour)
            yield Prop(wall.x0, z, partial(backdrop.draw_facade, stage, wall, tall, (r, g, b)))
            x = wall.x1 + rng.uniform(0, 6)
    else:
        yield Prop(0.0, z + 1, partial(backdrop.draw_treeline, stage, z + 1))
    if stage.chance(0.6):
        wall = Wall(road.x(-30, z), z - 1, road.x(30, z), z - 1)
        yield Prop(0.0, z - 1, partial(backdrop.draw_hedge, stage, wall, rng.uniform(0.8, 2)))
