"""People on foot and on bicycles, as jointed figures that face the camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fuseloop.datasets.synthesis.canvas import Mark, Paint, Points, ellipse, limb, paint
from fuseloop.datasets.synthesis.conditions import RGB
from fuseloop.datasets.synthesis.stage import Stage

PERSON, BIKE = 2, 3
PERSON_BOX, BICYCLE_BOX = 0, 1

CLOTHES: list[RGB] = [
    (32, 34, 40), (42, 44, 56), (24, 24, 26), (70, 70, 76), (36, 40, 60), (28, 28, 30), (120, 40, 40), (50, 70, 110),
    (200, 196, 190), (96, 84, 60), (60, 90, 66), (150, 150, 156), (180, 140, 60), (90, 60, 90),
]  # fmt: skip
TROUSERS = CLOTHES[:8]
SKINS: list[RGB] = [(222, 178, 150), (198, 150, 118), (140, 98, 72), (96, 66, 50)]
HAIRS: list[RGB] = [(28, 24, 22), (40, 30, 24), (90, 68, 44), (150, 146, 140)]
FRAMES: list[RGB] = [(160, 30, 30), (30, 30, 34), (190, 192, 196), (40, 80, 150), (60, 120, 70), (220, 200, 60)]

Place = tuple[float, float]


@dataclass(frozen=True)
class Person:
    """One person.

    Attributes:
        tall: Height in metres.
        front: 0 seen from the side, 1 seen from front or back.
        facing: Whether the face is seen; else the hair, and perhaps a backpack.
        stride: Length of the step as a share of the height.
        ahead: -1 walks to the left, 1 to the right.
        insulation: Share of the body's warmth that the clothes hold back.
    """

    tall: float
    front: float
    facing: bool
    stride: float
    ahead: int
    insulation: float


class Wardrobe(NamedTuple):
    """What one person wears, as paints."""

    skin: Paint
    hair: Paint
    top: Paint
    sleeve: Paint
    legs: Paint
    hidden_leg: Paint
    shoes: Paint
    bag: Paint


class _Figure:
    """Draws the parts of one figure by places in metres: to the right of its foot, and up."""

    def __init__(self, stage: Stage, x: float, z: float, mark: Mark, ahead: int) -> None:
        self.canvas, self.mark, self.ahead = stage.canvas, mark, ahead
        self.scale = stage.camera.focal / z
        self.column, self.row = stage.camera.at(x, 0, z)

    def spot(self, place: Place) -> Place:
        """A place of the figure in pixels."""
        return self.column + self.ahead * place[0] * self.scale, self.row - place[1] * self.scale

    def bar(self, start: Place, stop: Place, thick: float, thin: float, ink: Paint) -> None:
        """A tapered bar by its half widths."""
        outline = limb(self.spot(start), self.spot(stop), thick * self.scale, thin * self.scale)
        self.canvas.fill(outline, ink, self.mark)

    def disc(self, middle: Place, across: float, down: float, ink: Paint) -> None:
        """An ellipse by its radii, unless it is much smaller than a pixel."""
        if across * self.scale < 0.4:
            return
        self.canvas.fill(ellipse(*self.spot(middle), across * self.scale, down * self.scale), ink, self.mark)

    def shape(self, corners: list[Place], ink: Paint) -> None:
        """A polygon."""
        self.canvas.fill(np.array([self.spot(corner) for corner in corners]), ink, self.mark)


def sample_person(stage: Stage) -> Person:
    """Draws a person's size, pose and clothing."""
    rng = stage.rng
    child = stage.chance(0.07)
    cold = np.clip((22 - stage.conditions.air) / 25, 0, 1)
    return Person(
        tall=rng.uniform(1.0, 1.4) if child else rng.normal(1.7, 0.08),
        front=1.0 if stage.chance(0.5) else rng.uniform(0, 0.6),
        facing=stage.chance(0.5),
        stride=rng.uniform(0, 0.05) if stage.chance(0.3) else rng.uniform(0.15, 0.38),
        ahead=-1 if stage.chance(0.5) else 1,
        insulation=0.25 + 0.4 * cold * rng.uniform(0.5, 1),
    )


def _dress(stage: Stage, person: Person, light: float) -> Wardrobe:
    """Draws clothes; each lets through its own share of the warmth."""
    conditions, rng = stage.conditions, stage.rng
    cloth, trousers = stage.pick(CLOTHES), stage.pick(TROUSERS)
    top = conditions.clothing(person.insulation)
    legs = conditions.clothing(person.insulation * rng.uniform(0.75, 1.15))
    return Wardrobe(
        skin=paint(stage.pick(SKINS), conditions.skin, light),
        hair=paint(stage.pick(HAIRS), conditions.clothing(0.3), light),
        top=paint(cloth, top, light),
        sleeve=paint(cloth, top - 0.8, light * 0.86),
        legs=paint(trousers, legs, light),
        hidden_leg=paint(trousers, legs - 0.5, light * 0.78),
        shoes=paint((30, 28, 28), conditions.clothing(0.75), light),
        bag=paint(stage.pick(CLOTHES), conditions.clothing(0.85), light),
    )


def draw_person(stage: Stage, person: Person, x: float, z: float, light: float) -> None:
    """Draws a person who stands or walks."""
    canvas, rng = stage.canvas, stage.rng
    mark = canvas.begin(PERSON, z)
    wear = _dress(stage, person, light)
    figure = _Figure(stage, x, z, mark, person.ahead)
    tall, side, front = person.tall, 1 - person.front, person.front
    hip, shoulder = (0.035 + 0.045 * front) * tall, (0.075 + 0.05 * front) * tall
    step = person.stride * side * tall
    coat, skirt = stage.chance(0.35), stage.chance(0.1)

    def leg(root: float, knee: float, foot: float, raised: float, ink: Paint) -> None:
        bent, sole = (knee, 0.27 * tall + raised * 0.4), (foot, 0.045 * tall + raised)
        figure.bar((root, 0.5 * tall), bent, 0.052 * tall, 0.037 * tall, ink)
        figure.bar(bent, sole, 0.037 * tall, 0.025 * tall, wear.skin if skirt else ink)
        heel, toe = (
            (foot - 0.01 * tall, sole[1] - 0.02 * tall),
            (foot + (0.01 + 0.075 * side) * tall, sole[1] - 0.025 * tall),
        )
        figure.bar(heel, toe, 0.026 * tall, 0.02 * tall, wear.shoes)

    def arm(root: float, out: float, swing: float) -> None:
        elbow = (root + out + 0.4 * swing, 0.62 * tall)
        hand = (root + 1.15 * out + swing, 0.47 * tall + 0.15 * abs(swing))
        figure.bar((root, 0.8 * tall), elbow, 0.036 * tall, 0.03 * tall, wear.sleeve)
        figure.bar(elbow, hand, 0.03 * tall, 0.022 * tall, wear.sleeve)
        figure.disc(hand, 0.022 * tall, 0.026 * tall, wear.skin)

    spread, swing, out = 0.75 * hip * front, 0.55 * step, 0.03 * tall * front
    leg(-spread, -spread - 0.1 * step, -spread - 0.5 * step, 0.12 * person.stride * tall, wear.hidden_leg)
    arm(-shoulder * front, -out, swing)
    leg(spread, spread + 0.3 * step, spread + 0.5 * step, 0, wear.legs)
    broad, hem = hip * (1.4 if coat else 1.1), (0.36 if coat else 0.48) * tall
    half = [(0.55 * shoulder, 0.85 * tall), (shoulder, 0.81 * tall), (0.92 * shoulder, 0.66 * tall), (broad, hem)]
    figure.shape(half + [(-right, up) for right, up in half[::-1]], wear.top)
    figure.shape(
        [*half, (0.35 * broad, hem), (0.3 * shoulder, 0.85 * tall)], wear.sleeve
    )  # the side away from the light
    if skirt:
        half = [(hip, 0.54 * tall), (1.9 * hip, 0.3 * tall)]
        figure.shape(half + [(-right, up) for right, up in half[::-1]], wear.legs)
    arm(shoulder * front, out, -swing)
    _draw_head(figure, person, wear, (0.0, 0.86 * tall))
    carried = rng.random()
    if carried < 0.35 and not person.facing:  # a backpack
        left, right, low, high = -0.75 * shoulder - 0.08 * tall * side, 0.75 * shoulder * front, 0.57 * tall, 0.8 * tall
        figure.shape([(left, high), (right, high), (right, low), (left, low)], wear.bag)
    elif carried > 0.9:  # a bag in the hand
        left, right = shoulder, shoulder + 0.14 * tall
        figure.shape([(left, 0.46 * tall), (right, 0.46 * tall), (right, 0.32 * tall), (left, 0.32 * tall)], wear.bag)
    canvas.end(mark, PERSON_BOX)


def _draw_head(figure: _Figure, person: Person, wear: Wardrobe, neck: Place) -> None:
    """Draws neck, head and hair."""
    tall, (right, up) = person.tall, neck
    figure.bar((right, up - 0.01 * tall), (right, up + 0.03 * tall), 0.03 * tall, 0.028 * tall, wear.skin)
    figure.disc((right, up + 0.073 * tall), 0.052 * tall, 0.068 * tall, wear.skin)
    bare = 0.5 if person.facing else 0.15  # how much of the head the hair leaves free
    figure.disc((right, up + (0.073 + 0.068 * bare) * tall), 0.053 * tall, (0.072 - 0.068 * bare) * tall, wear.hair)


def draw_bicycle(stage: Stage, rider: Person | None, x: float, z: float, turn: float, ahead: int, light: float) -> None:
    """Draws a bicycle, and whoever rides it as an object of its own.

    Args:
        stage: The scene.
        rider: Who rides, if anyone.
        x: Metres to the right.
        z: Metres ahead.
        turn: 1 seen from the side, towards 0 seen from front or back.
        ahead: -1 heads to the left, 1 to the right.
        light: Share of the light that falls there.
    """
    canvas, _, conditions, rng = stage
    mark = canvas.begin(BIKE, z)
    figure = _Figure(stage, x, z, mark, ahead)
    metal = conditions.ground + rng.uniform(-1, 1)
    frame, rubber = paint(stage.pick(FRAMES), metal, light), paint((28, 28, 28), metal + 1, light)
    turn = max(turn, 0.12)
    base, radius, scale = 0.53 * turn, 0.34, figure.scale
    for place in (-base, base):
        wheel = ellipse(*figure.spot((place, radius)), radius * turn * scale, radius * scale)
        canvas.claim(wheel, mark)  # the label is the whole disc, as annotators draw it; one can see through the wheel
        canvas.stroke(np.concatenate([wheel, wheel[:1]]), 0.045 * scale, rubber, mark)
    crank, seat, bars, head = (-0.08 * turn, 0.28), (-0.2 * turn, 0.85), (0.36 * turn, 0.98), (0.34 * turn, 0.75)
    for joints in (
        [(-base, radius), crank, seat, (-base, radius)],
        [crank, head, (-0.17 * turn, 0.72)],
        [(base, radius), head, bars],
    ):
        canvas.stroke(np.array([figure.spot(joint) for joint in joints]), 0.035 * scale, frame, mark)
    figure.bar((seat[0] - 0.12, 0.88), (seat[0] + 0.1, 0.9), 0.035, 0.03, rubber)
    grip = 0.06 * turn + 0.26 * (1 - turn)
    figure.bar((bars[0] - grip, 1.0), (bars[0] + grip, 1.03), 0.025, 0.025, rubber)
    if stage.chance(0.35):  # a basket
        left, right = base - 0.12, base + 0.2
        wicker = paint((120, 118, 112), metal, light)
        figure.shape([(left, 0.95), (right, 0.95), (right - 0.04, 0.7), (left + 0.04, 0.7)], wicker)
    canvas.end(mark, BICYCLE_BOX)
    if rider is not None:
        _draw_rider(stage, rider, x, z, turn, ahead, light)


def _draw_rider(stage: Stage, rider: Person, x: float, z: float, turn: float, ahead: int, light: float) -> None:
    """Draws a person in the saddle."""
    canvas = stage.canvas
    mark = canvas.begin(PERSON, z)
    wear = _dress(stage, rider, light)
    figure = _Figure(stage, x, z, mark, ahead)
    wide, aside = 0.17 - 0.05 * turn, 1 - turn
    (back, seat), (breast, chest), (reach, bars) = (-0.2 * turn, 0.92), (0.12 * turn, 1.42), (0.36 * turn, 1.04)
    for out, pedal, lift in ((-1, -0.14, 0.16), (1, 0.02, 0.4)):
        knee = (0.14 * turn + out * 0.1 * aside, 0.62 + 0.5 * lift)
        foot = (pedal * turn + out * 0.1 * aside, lift)
        ink = wear.hidden_leg if out < 0 else wear.legs
        figure.bar((back + out * 0.07 * aside, seat), knee, 0.09, 0.06, ink)
        figure.bar(knee, foot, 0.06, 0.04, ink)
        figure.bar((foot[0] - 0.04, lift - 0.03), (foot[0] + 0.14 * turn + 0.04, lift - 0.04), 0.04, 0.03, wear.shoes)
    body = [
        (breast - wide, chest), (breast + 0.8 * wide, chest), (breast + wide, chest - 0.12),
        (back + 0.15, seat - 0.03), (back - 0.15, seat), (breast - 1.25 * wide, chest - 0.15),
    ]  # fmt: skip
    figure.shape(body, wear.top)
    for out in (-1, 1):
        elbow, grip = (0.26 * turn + out * 0.26 * aside, 1.2), (reach + out * 0.22 * aside, bars)
        figure.bar((breast + out * wide * aside, chest - 0.07), elbow, 0.055, 0.045, wear.sleeve)
        figure.bar(elbow, grip, 0.045, 0.035, wear.sleeve)
        figure.disc(grip, 0.035, 0.04, wear.skin)
    _draw_head(figure, rider, wear, (breast + 0.05 * turn, chest + 0.01))
    canvas.end(mark, PERSON_BOX)


def shadow_outline(stage: Stage, x: float, z: float, tall: float) -> Points:
    """Outline in pixels of the shadow on the ground of an upright thing."""
    tip = x - stage.conditions.sun_side * 0.9 * tall
    return stage.camera.project(
        np.array([(x - 0.2, 0, z), (x + 0.2, 0, z - 0.1), (tip, 0, z + 0.25), (tip, 0, z + 0.5)])
    )
