"""How the two cameras see a painted scene: light, glare, fog and noise for one; blur, drift and gain for the other.

Colours are kept as three planes here, 3×H×W, because the arithmetic is faster that way.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from fuseloop.datasets.synthesis.canvas import COLDEST, DEGREES, DEPTHS
from fuseloop.datasets.synthesis.conditions import RGB
from fuseloop.datasets.synthesis.noise import normal, texture
from fuseloop.datasets.synthesis.stage import Stage
from fuseloop.datasets.synthesis.street import Lamp

Bytes: TypeAlias = NDArray[np.uint8]

GAIN_STEPS = 4000  # of the thermal camera's response curve
CLEAR_AIR = 0.004  # extinction per metre below which fog is not worth computing


class Smoke(NamedTuple):
    """A cloud that hides what is behind it from the visible camera only.

    Attributes:
        column: Middle, in pixels.
        row: Middle, in pixels.
        across: Radius in pixels.
        down: Radius in pixels.
        z: Depth in metres.
        density: Largest opacity in [0, 1].
    """

    column: float
    row: float
    across: float
    down: float
    z: float
    density: float


def see_visible(stage: Stage, lamps: list[Lamp], smoke: list[Smoke]) -> NDArray[np.uint8]:
    """What the visible camera records, H×W×3 uint8 RGB."""
    canvas, _, conditions, rng = stage
    size = _size(stage)
    near, glow = _channel(canvas.labels, 2), _channel(canvas.labels, 3)
    radiance = np.stack(cv2.split(canvas.paint)[:3]).astype(np.float32)
    radiance *= 1 / 255
    radiance *= 1 + 0.035 * texture(rng, canvas.height, canvas.width, size)  # nothing is quite even
    radiance *= _light(stage, near, lamps) + _shine(stage, glow)
    if conditions.fog > CLEAR_AIR:
        clear = _look_up(near, np.exp(-conditions.fog * DEPTHS))
        haze = _colour(conditions.ambient) * np.float32(0.5 if conditions.night else 0.62)
        radiance = (radiance - haze) * clear + haze
    for cloud in smoke:
        _lay_smoke(stage, radiance, near, cloud)
    if conditions.night:
        radiance += _glare(stage, glow, lamps)
    elif conditions.sunny and stage.chance(0.2):
        radiance += _veil(stage)
    exposure = rng.uniform(1.2, 2.6) if conditions.night else rng.uniform(1.25, 1.9)
    seen = 1 - cv2.exp(radiance.reshape(-1, canvas.width) * np.float32(-exposure)).reshape(radiance.shape)
    sharpness = rng.uniform(0.35, 0.75) * max(1.0, size**0.5)
    grain = rng.uniform(0.012, 0.034) if conditions.night else rng.uniform(0.003, 0.012)
    for plane in seen:
        cv2.GaussianBlur(plane, (0, 0), sharpness, dst=plane)
        # Shot noise grows with the light, read noise does not.
        plane += cv2.sqrt(plane * (2.5 * grain**2) + 0.35 * grain**2) * normal(rng, plane.shape)
    picture: NDArray[np.uint8] = cv2.merge([cv2.convertScaleAbs(np.maximum(plane, 0), alpha=255) for plane in seen])
    return picture


def see_infrared(stage: Stage) -> NDArray[np.uint8]:
    """What the thermal camera records, H×W uint8: temperatures through blur, noise, and an automatic gain."""
    canvas, _, conditions, rng = stage
    height, width, size = canvas.height, canvas.width, _size(stage)
    celsius = _channel(canvas.paint, 3).astype(np.float32) * (DEGREES / 255) + COLDEST
    celsius += texture(rng, height, width, size) * rng.uniform(0.05, 0.25)  # materials differ
    if conditions.fog > CLEAR_AIR:
        clear = _look_up(_channel(canvas.labels, 2), np.exp(-0.25 * conditions.fog * np.minimum(DEPTHS, 300)))
        celsius = (celsius - np.float32(conditions.air)) * clear + np.float32(conditions.air)
    cv2.GaussianBlur(celsius, (0, 0), rng.uniform(0.5, 1.1) * max(1.0, size**0.5), dst=celsius)
    step = (slice(None, None, max(1, height // 60)), slice(None, None, max(1, width // 80)))
    sample, near = celsius[step].ravel(), canvas.labels[..., 2][step].ravel()
    if stage.chance(0.8) and near.any():  # the gain rests on the ground and what stands on it, and the sky is black
        sample = sample[near > 0]
    floor, high = np.percentile(sample, (rng.uniform(0.5, 25), rng.uniform(99, 100)))
    low = floor - 0.08 * (high - floor)
    high = max(high, floor + rng.uniform(7, 13))
    noise = rng.uniform(0.04, 0.2)
    celsius += normal(rng, (height, width)) * noise
    celsius += normal(rng, (1, width)) * noise * rng.uniform(0.2, 0.8)  # columns share an amplifier
    celsius += normal(rng, (height, 1)) * noise * 0.2
    steps = np.clip((celsius - low) * (GAIN_STEPS / (high - low)), 0, 1.2 * GAIN_STEPS).astype(np.uint16)
    unit = np.arange(int(1.2 * GAIN_STEPS) + 1) / GAIN_STEPS
    response = np.rint(np.minimum(255, rng.uniform(110, 250) * unit ** rng.uniform(0.75, 1.8))).astype(np.uint8)
    return np.asarray(response[steps])


def _size(stage: Stage) -> float:
    """The size of the image; 1 for 320×240."""
    return min(stage.canvas.height, stage.canvas.width) / 240


def _channel(pixels: Bytes, index: int) -> Bytes:
    """One channel of H×W×C as H×W, in one piece of memory."""
    return np.asarray(cv2.extractChannel(pixels, index))


def _look_up(codes: Bytes, table: NDArray[Any]) -> NDArray[np.float32]:
    """The value of every byte in a table of 256, as float32."""
    return np.asarray(cv2.LUT(codes, table.astype(np.float32)))


def _colour(rgb: RGB) -> NDArray[np.float32]:
    """A colour that combines with planes, 3×1×1."""
    return np.array(rgb, np.float32).reshape(3, 1, 1)


def _shine(stage: Stage, glow: Bytes) -> NDArray[np.float32]:
    """How strongly every pixel shines by itself, H×W."""
    conditions, rng = stage.conditions, stage.rng
    by_glow = np.arange(256, dtype=np.float32) * ((2.2 if conditions.night else rng.uniform(0.95, 1.5)) / 255)
    return _look_up(glow, by_glow)


def _light(stage: Stage, near: Bytes, lamps: list[Lamp]) -> NDArray[np.float32]:
    """Light that falls on every pixel, 3×H×W or broadcastable to it."""
    canvas, camera, conditions, rng = stage
    ambient = _colour(conditions.ambient)
    if not conditions.night:
        return ambient
    height, width = canvas.height, canvas.width
    step = 4 * max(1, round(_size(stage)))
    rows = np.arange(0, height + step, step, dtype=np.float32)[:, None] + (step - 1) / 2
    columns = np.arange(0, width + step, step, dtype=np.float32) + (step - 1) / 2
    pools = np.zeros((3, len(rows), len(columns)), np.float32)
    for lamp in lamps:
        if lamp.foot > lamp.row + 1:
            reach = camera.focal / lamp.z
            aside = (columns - lamp.column) ** 2
            pool = np.exp(-aside / (4.5 * reach) ** 2 - ((rows - lamp.foot) / (1.6 * reach)) ** 2)
            under = np.clip((rows - lamp.row) / (lamp.foot - lamp.row), 0, 1)
            cone = 0.5 * under * np.exp(-aside / (2.2 * reach * (0.25 + under)) ** 2) * (rows < lamp.foot)
            pools += np.maximum(pool, cone) * (_colour(lamp.colour) * np.float32(0.6 * lamp.power))
    light = np.stack([_enlarge(pool, step, height, width) for pool in pools]) + ambient
    if stage.chance(0.75):  # the headlights of the camera's own car
        fading = np.exp(-DEPTHS / rng.uniform(9, 18)) * (DEPTHS < 1000)  # the sky stays dark
        aside = ((np.arange(width, dtype=np.float32) - camera.centre) / (0.9 * camera.focal)) ** 2
        below = np.arange(height, dtype=np.float32)[:, None] - camera.horizon
        beam = (
            np.exp(-aside) * np.clip(below / (0.12 * camera.focal) + 1.2, 0.1, 1) * np.float32(rng.uniform(0.15, 0.9))
        )
        light += _look_up(near, fading) * beam * _colour((1.0, 0.96, 0.86))
    return light


def _glare(stage: Stage, glow: Bytes, lamps: list[Lamp]) -> NDArray[np.float32]:
    """Light that spreads in lens and air around lamps and windows, and its mirror image on a wet road, 3×H×W."""
    canvas, camera, conditions, _ = stage
    height, width, size = canvas.height, canvas.width, _size(stage)
    step = 4 * max(1, round(size))
    small = (-(-width // step), -(-height // step))
    shining = (glow > 40).view(np.uint8)
    halo = []
    for plane in cv2.split(canvas.paint)[:3]:
        emission = cv2.resize(plane * shining, small, interpolation=cv2.INTER_AREA).astype(np.float32) * (1.1 / 255)
        halo.append(cv2.GaussianBlur(emission, (0, 0), 1.2) * 0.35 + cv2.GaussianBlur(emission, (0, 0), 6) * 0.5)
    rows, columns = np.arange(small[1], dtype=np.float32)[:, None], np.arange(small[0], dtype=np.float32)
    dense = 1 + 25 * min(conditions.fog, 0.05)
    for lamp in lamps:
        away = (rows - lamp.row / step) ** 2 + (columns - lamp.column / step) ** 2
        away *= (step / (4 * size)) ** 2
        power = lamp.power * min(1.0, 14 / lamp.z)
        spread = power * (0.8 / (1 + 1.5 * away) + 0.08 * dense * np.exp(-away / (60 * dense)))
        for channel, strength in zip(halo, lamp.colour, strict=True):
            channel += spread * np.float32(strength)
    if conditions.wet:
        tall = max(3, small[1] // 2) | 1
        for channel in halo:
            channel += np.roll(cv2.blur(channel, (1, tall)), tall // 3, axis=0) * 0.8 * (rows > camera.horizon / step)
    return np.stack([_enlarge(channel, step, height, width) for channel in halo])


def _enlarge(plane: NDArray[np.float32], step: int, height: int, width: int) -> NDArray[np.float32]:
    """A smooth plane to full size."""
    size = (plane.shape[1] * step, plane.shape[0] * step)
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR), np.float32)[:height, :width]


def _veil(stage: Stage) -> NDArray[np.float32]:
    """The veil of a low sun that shines into the lens, 3×H×W."""
    canvas, camera, conditions, rng = stage
    column = camera.centre + conditions.sun_side * rng.uniform(0.1, 0.6) * canvas.width
    row = camera.horizon - rng.uniform(0.1, 0.4) * canvas.height
    y = (np.arange(canvas.height, dtype=np.float32)[:, None] - row) / (0.45 * canvas.height)
    x = (np.arange(canvas.width, dtype=np.float32) - column) / (0.45 * canvas.width)
    strength = _colour((1.0, 0.93, 0.78)) * np.float32(rng.uniform(0.4, 1.1))
    return np.asarray(np.exp(-2 * np.sqrt(y * y + x * x)) * strength, np.float32)


def _lay_smoke(stage: Stage, radiance: NDArray[np.float32], near: Bytes, cloud: Smoke) -> None:
    """Lays a cloud over what is at its depth or beyond."""
    canvas, _, conditions, rng = stage
    left, top = int(max(0, cloud.column - 1.5 * cloud.across)), int(max(0, cloud.row - 1.5 * cloud.down))
    right = int(min(canvas.width, cloud.column + 1.5 * cloud.across + 1))
    bottom = int(min(canvas.height, cloud.row + 1.5 * cloud.down + 1))
    if right <= left or bottom <= top:
        return
    y = (np.arange(top, bottom, dtype=np.float32)[:, None] - cloud.row) / cloud.down
    x = (np.arange(left, right, dtype=np.float32) - cloud.column) / cloud.across
    puffs = texture(rng, bottom - top, right - left, max(0.5, cloud.across / 25))
    thick = np.clip((1.2 - x * x - y * y + 0.3 * puffs) * 1.1, 0, 1) * np.float32(cloud.density)
    thick *= near[top:bottom, left:right] <= 255 / (1 + cloud.z / 15)
    region = radiance[:, top:bottom, left:right]
    region += (_colour(conditions.ambient) * (0.62 + 0.1 * puffs) - region) * thick
