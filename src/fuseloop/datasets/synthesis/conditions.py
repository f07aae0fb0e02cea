"""The hour, the weather and the temperatures that everything in one scene shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

RGB: TypeAlias = tuple[float, float, float]


NIGHT_TINTS: list[RGB] = [(1.0, 1.05, 0.8), (0.85, 1.0, 1.15), (1.15, 1.0, 0.75), (0.95, 1.1, 1.0)]


@dataclass(frozen=True)
class Conditions:
    """Light, weather and temperatures of one scene; temperatures in degrees Celsius.

    Attributes:
        night: Whether it is night.
        sunny: Whether the sun casts shadows.
        wet: Whether the road is wet and mirrors lights.
        sun_side: -1 when the sun stands on the left, 1 on the right.
        ambient: Light that falls everywhere, R, G, B; 1 exposes a white surface fully.
        fog: Extinction per metre.
        air: Temperature of the air.
        sky: Apparent temperature of the sky.
        road: Surface of the road.
        ground: Pavement and grass.
        wall: Facades.
        foliage: Leaves.
        shade: How much colder the ground is in the shade.
        skin: Faces and hands.
    """

    night: bool
    sunny: bool
    wet: bool
    sun_side: int
    ambient: RGB
    fog: float
    air: float
    sky: float
    road: float
    ground: float
    wall: float
    foliage: float
    shade: float
    skin: float

    def clothing(self, insulation: float) -> float:
        """Temperature of clothes that let through a share of the warmth of the skin."""
        return self.air + (self.skin - self.air) * (1 - insulation)


def sample_conditions(rng: np.random.Generator) -> Conditions:
    """Draws a plausible hour and weather; about as many nights as days, as in the MSRS kit."""
    night = bool(rng.random() < 0.48)
    sunny = bool(not night and rng.random() < 0.5)
    if night:
        air = rng.uniform(-4, 23)
        warmth = rng.uniform(0, 5)  # what road and walls kept of the day
        level, tints = (
            rng.uniform(0.012, 0.06),
            [(1.0, 1.05, 0.8), (0.85, 1.0, 1.15), (1.15, 1.0, 0.75), (0.95, 1.1, 1.0)],
        )
        tint = tints[rng.integers(len(tints))]
    else:
        air = rng.uniform(2, 33)
        warmth = rng.uniform(4, 17) if sunny else rng.uniform(0, 4)
        level = rng.uniform(0.75, 1.25) if sunny else rng.uniform(0.4, 0.95)
        cast = rng.uniform(-0.09, 0.09)  # towards blue or towards yellow
        tint = (1 + cast, 1 + rng.uniform(-0.03, 0.03), 1 - cast)
    foggy = rng.random() < 0.13
    clear = rng.random()
    return Conditions(
        night=night,
        sunny=sunny,
        wet=bool(rng.random() < (0.25 if night else 0.1 * (not sunny))),
        sun_side=-1 if rng.random() < 0.5 else 1,
        ambient=(level * tint[0], level * tint[1], level * tint[2]),
        fog=float(rng.uniform(0.012, 0.06) if foggy else rng.uniform(0, 0.002)),
        air=air,
        sky=air - (14 + 20 * clear),
        road=air + warmth,
        ground=air + 0.6 * warmth + rng.uniform(-2, 1),
        wall=air + 0.7 * warmth + rng.uniform(-1, 2),
        foliage=air + rng.uniform(-1, 1.5) + 0.15 * warmth,
        shade=0.5 * warmth if sunny else 0.0,
        skin=float(np.clip(26.5 + 0.26 * air, 26.5, 34.5)),
    )
