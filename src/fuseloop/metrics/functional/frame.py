"""What a metric is given and what it gives back.

A `Frame` holds the two sources and the fused image as levels 0..255. Each of the three is a `Grey`, which remembers
what several metrics need of it (moments, gradients, ...), so that scoring many metrics on a frame, or many fused images
of one pair, does that work once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar, cast

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


class Grey:
    """One grey image (or a batch) as levels 0..255, with a memory for what is derived from it.

    Attributes:
        levels: B×1×H×W, float64 when scoring.
        quantized: Whether the levels are whole numbers, as in a saved image.
    """

    def __init__(self, levels: Tensor, *, quantized: bool) -> None:
        self.levels = levels
        self.quantized = quantized
        self._known: dict[tuple[Any, ...], Any] = {}

    @classmethod
    def of(cls, image: Tensor, *, quantize: bool, name: str = "image") -> Grey:
        """Levels of an image in [0, 1].

        Args:
            image: B×1×H×W, floating point; small overshoots of [0, 1] are clipped, as saving does.
            quantize: Round to whole levels, half up, and compute in float64. Else keep the dtype and gradients.
            name: What errors call the image.

        Raises:
            ValueError: The image has another shape or type, is empty, has NaN or infinite pixels, or, when quantized,
                values below -0.5 or above 1.5, as images in 0..255 have.
        """
        if image.ndim != 4 or image.shape[1] != 1 or image.numel() == 0:
            raise ValueError(f"the {name} image has the shape {tuple(image.shape)}; metrics take B×1×H×W, not empty")
        if not image.is_floating_point():
            raise ValueError(f"the {name} image is {image.dtype}; metrics take floating point in [0, 1]: divide by 255")
        if not bool(torch.isfinite(image).all()):
            raise ValueError(f"the {name} image has NaN or infinite pixels")
        if quantize:
            low, high = (float(end) for end in torch.aminmax(image.detach()))
            if low < -0.5 or high > 1.5:
                raise ValueError(
                    f"the values of the {name} image go from {low:g} to {high:g}; metrics take images in [0, 1]: "
                    "divide by 255"
                )
            # Apple's devices have no float64.
            wide = image.to(torch.float32 if image.device.type == "mps" else torch.float64)
            return cls(torch.floor(wide.clamp(0.0, 1.0) * 255.0 + 0.5), quantized=True)
        if image.dtype not in (torch.float32, torch.float64):
            image = image.float()  # half precision cannot hold a variance of levels
        return cls(image.clamp(0.0, 1.0) * 255.0, quantized=False)

    def once(self, function: Callable[Concatenate[Grey, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`function(self, ...)`, computed at the first call and remembered."""
        key = (function, args, tuple(kwargs.items()))
        if key not in self._known:
            self._known[key] = function(self, *args, **kwargs)
        return cast(T, self._known[key])


class Frame(NamedTuple):
    """The pair and what was made of it; three images of one shape."""

    infrared: Grey
    visible: Grey
    fused: Grey

    @classmethod
    def of(cls, infrared: Tensor, visible: Tensor, fused: Tensor, *, quantize: bool = True) -> Frame:
        """A frame from three B×1×H×W tensors in [0, 1]; see `Grey.of`.

        Raises:
            ValueError: An image is not usable, or the shapes differ.
        """
        shapes = {tuple(image.shape) for image in (infrared, visible, fused)}
        if len(shapes) > 1:
            raise ValueError(
                f"infrared, visible and fused image differ in shape: "
                f"{tuple(infrared.shape)}, {tuple(visible.shape)}, {tuple(fused.shape)}"
            )
        return cls(
            Grey.of(infrared, quantize=quantize, name="infrared"),
            Grey.of(visible, quantize=quantize, name="visible"),
            Grey.of(fused, quantize=quantize, name="fused"),
        )

    @property
    def sources(self) -> tuple[Grey, Grey]:
        """Infrared and visible, for definitions that treat both alike."""
        return self.infrared, self.visible


@dataclass(frozen=True)
class Result:
    """Values of one metric for a batch, and why some of them are undefined.

    Attributes:
        raw: B values; meaningless where a cause holds.
        causes: Pairs of a mask (B,) and the reason that makes the value undefined there.
    """

    raw: Tensor
    causes: tuple[tuple[Tensor, str], ...] = ()

    @property
    def values(self) -> Tensor:
        """B values, NaN where undefined (no gradient flows there)."""
        values = self.raw
        for mask, _ in self.causes:
            values = values.masked_fill(mask, torch.nan)
        return values

    def reason(self, index: int = 0) -> str | None:
        """Why value `index` is undefined, or None when it is defined."""
        return next((text for mask, text in self.causes if bool(mask[index])), None)


Core = Callable[[Frame, str], Result]


class MetricFunction(Protocol):
    """A metric: call it on tensors, or use `of` on a frame to share work with other metrics and learn reasons.

    Attributes:
        conventions: Whose definitions it knows, "default" first where it has one, and what each of them changes.
    """

    __name__: str
    conventions: Mapping[str, str]

    def __call__(
        self, infrared: Tensor, visible: Tensor, fused: Tensor, *, convention: str = "default", quantize: bool = True
    ) -> Tensor:
        """The values, one for each image of the batch."""

    def of(self, frame: Frame, convention: str = "default") -> Result:
        """The values with the reasons of undefined ones."""


_ARGUMENTS = """

    Conventions:
        {conventions}

    Args:
        infrared: B×1×H×W in [0, 1], on any device.
        visible: The same shape, grey.
        fused: The same shape, grey.
        convention: Whose definition to follow, one of the above.
        quantize: Score what would be saved: whole levels 0..255, in float64. `False` keeps dtype and gradients.

    Returns:
        B values; NaN where the metric is undefined (`{name}.of(frame)` tells the reason).

    Raises:
        ValueError: Shapes differ, pixels are not finite, or the convention is not one of this metric.
    """

SAME = "as the default"


def metric(
    *same: str, default: bool = True, minimum_side: int | Mapping[str, int] = 1, **changed: str
) -> Callable[[Core], MetricFunction]:
    """Makes a metric of a function on frames.

        @metric("tdfusion", "tang", cddfuse="in nats", minimum_side={"default": 11, "cddfuse": 7})

    Args:
        same: Conventions whose definition is the default one.
        default: Whether there is a default definition; some metrics exist only in public implementations.
        minimum_side: Images with a shorter side are undefined. One number, or one for each convention that differs from
            "default".
        changed: The other conventions, and in a few words what each changes.
    """
    conventions = ({"default": "the definition above"} if default else {}) | dict.fromkeys(same, SAME) | changed
    minima = {"default": minimum_side} if isinstance(minimum_side, int) else minimum_side

    def decorate(core: Core) -> MetricFunction:
        name = core.__name__

        def of(frame: Frame, convention: str = "default") -> Result:
            if convention not in conventions:
                raise ValueError(f"{name} has no convention {convention!r}; it has {', '.join(conventions)}")
            levels = frame.fused.levels
            side = min(levels.shape[-2:])
            needed = minima.get(convention, minima.get("default", 1))
            if side < needed:
                everywhere = torch.ones(len(levels), dtype=torch.bool, device=levels.device)
                text = f"the shorter side has {side} pixels, {name} needs {needed}"
                return Result(levels.new_zeros(len(levels)), ((everywhere, text),))
            # Mixed precision would compute the windows in half precision.
            with torch.autocast(levels.device.type, enabled=False):
                return core(frame, convention)

        def call(
            infrared: Tensor,
            visible: Tensor,
            fused: Tensor,
            *,
            convention: str = "default",
            quantize: bool = True,
        ) -> Tensor:
            return of(Frame.of(infrared, visible, fused, quantize=quantize), convention).values

        call.__name__ = call.__qualname__ = name
        call.__module__ = core.__module__
        lines = "\n        ".join(f"{known}: {remark}." for known, remark in conventions.items())
        call.__doc__ = (core.__doc__ or "").rstrip() + _ARGUMENTS.format(name=name, conventions=lines)
        function = cast(Any, call)
        function.of = of
        function.conventions = conventions
        return cast(MetricFunction, function)

    return decorate
