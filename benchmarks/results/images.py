"""What makes an image, as a value, and what makes such images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fuseloop.datasets.labelled import LabelledPair, LabelledPairs
from fuseloop.engines.engine import Engine
from fuseloop.evaluation.results import weights_hash
from fuseloop.evaluation.sources import FuserSource, ImageSource, RuleSource, file_hash
from fuseloop.fusers.closed_loop import ClosedLoopFuser
from fuseloop.fusers.fuser import Fuser
from fuseloop.fusers.loop_weights import Loop, find_loop, is_loop, read_loop
from fuseloop.fusers.requirement import Profile, ProfileMaker
from fuseloop.fusers.rules import RULES
from fuseloop.fusers.weights import find_weights, read_weights
from fuseloop.networks.modes import looking
from fuseloop.networks.vfn import Compensate
from fuseloop.pairs.images import Picture
from fuseloop.tasks.protocol import TaskNetwork

Pixels = NDArray[np.uint8]
T = TypeVar("T")
PREVIOUS, PROFILE = "previous", "profile"


class Image(NamedTuple):
    """All that decides the image of a pair.

    Attributes:
        maker: A rule, the name or the weight file of a fusion network, or the weight file of a closed loop.
        network: Name of the task network that a closed loop makes it for; empty for other makers.
        strength: Of a closed loop.
        feedback: Of a closed loop: "frame", "previous", in the order of the frames, or "profile".
        first_look: Of a closed loop.
        light: What the visible image is multiplied by before.
    """

    maker: str
    network: str = ""
    strength: float = 1.0
    feedback: str = "frame"
    first_look: float = 1.0
    light: float = 1.0


def dimmed(pair: LabelledPair, light: float) -> LabelledPair:
    """A pair whose visible image is multiplied by a factor of at most 1 and rounded to 8 bits."""
    return pair if light == 1 else replace(pair, visible=np.floor(light * pair.visible + 0.5).astype(np.uint8))


class Makers:
    """Makes images, one pair after the other; what makes them is kept.

    Args:
        networks: Task networks by their names, on one device, where the fusion networks go too.
        profiled: Opens the pairs whose mean requirement is a profile, where one is asked for.
    """

    def __init__(self, networks: Mapping[str, TaskNetwork], profiled: Callable[[], LabelledPairs]) -> None:
        self._networks, self._profiled = networks, cache(profiled)
        self._eyes = {name: FirstLooks(network) for name, network in networks.items()}
        self._made: dict[Image, ImageSource] = {}
        self._passes: dict[str, dict[Any, Any]] = {}
        parameters = (parameter for network in networks.values() for parameter in network.parameters())
        self._device = next((parameter.device for parameter in parameters), torch.device("cpu"))
        self._read_loop = cache(lambda maker: read_loop(find_loop(maker)))
        self._profile = cache(self._make_profile)
        self.network_identity = cache(self._network_identity)

    def image(self, image: Image, pair: LabelledPair) -> Pixels:
        """The image of a pair, H×W×3 uint8; with feedback "previous" after those of the pairs before."""
        same = image if image.feedback == PREVIOUS else image._replace(light=1.0)
        if same not in self._made:
            self._made[same] = self._source(same)
        return self._made[same].image(dimmed(pair, image.light))

    def forget(self) -> None:
        """Forgets neutral images and first looks of a frame that is done."""
        for eye in self._eyes.values():
            eye.seen.clear()
        for passes in self._passes.values():
            passes.clear()

    def identity(self, image: Image) -> dict[str, Any]:
        """What the pixels depend on beside the pair, for a hash; names and places of files are not in it."""
        found: dict[str, Any] = image._asdict() | {"maker": self.maker_hash(image.maker)}
        found["network"] = self.network_identity(image.network) if image.network else ""
        if image.feedback == PROFILE:
            found["profiled"] = self._profiled().describe()
        return found

    def _network_identity(self, name: str) -> list[Any]:
        network = self._networks[name]
        return [type(network).__name__, list(network.classes), weights_hash(network)]

    @staticmethod
    @cache
    def maker_hash(maker: str) -> str:
        """SHA-256 of the weights of a maker; the name of a rule."""
        return maker if maker in RULES else file_hash(find_loop(maker) if is_loop(maker) else find_weights(maker))

    def _source(self, image: Image) -> ImageSource:
        if image.maker in RULES:
            return RuleSource(image.maker)
        if not is_loop(image.maker):
            return FuserSource(Fuser(read_weights(find_weights(image.maker)).to(self._device)))
        loop, feedback = self._loop(image.maker), cast("str | Profile", image.feedback)
        if feedback == PROFILE:
            feedback = self._profile(image.maker, image.network)
        eye = self._eyes[image.network] if feedback == "frame" else self._networks[image.network]
        options: dict[str, Any] = {"strength": image.strength, "feedback": feedback, "first_look": image.first_look}
        fuser = ClosedLoopFuser(loop, eye, **options)
        passes = self._passes.setdefault(weights_hash(loop.network), {})
        fuser.neutral.engine = SharedPasses(fuser.neutral.engine, passes)  # type: ignore[assignment]
        return FuserSource(fuser)  # type: ignore[arg-type]

    def _loop(self, maker: str) -> Loop:
        loop = self._read_loop(maker)
        loop.network.to(self._device)
        return loop

    def _make_profile(self, maker: str, network: str) -> Profile:
        pairs, found = self._profiled(), ProfileMaker(Fuser(self._loop(maker).network), self._networks[network])
        for index in range(len(pairs)):
            pair = pairs[index]
            found.add(Picture(pair.infrared), Picture(pair.visible))
        return found.profile()


class SharedPasses:
    """An engine that makes the neutral image of a frame once for all loops around one fusion network.

    Args:
        engine: The engine of one of them.
        made: What was made of the frame, the same for all.
    """

    def __init__(self, engine: Engine, made: dict[Any, Any]) -> None:
        self._engine, self._made = engine, made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def encode_first(self, infrared: Tensor, luma: Tensor) -> tuple[Tensor, Tensor]:
        """See `Engine.encode_first`."""
        return self._once((_bytes(infrared), _bytes(luma)), partial(self._engine.encode_first, infrared, luma))

    def finish(self, infrared: Tensor, visible: Tensor, compensate: Compensate | None = None) -> Tensor:
        """See `Engine.finish`; the features are those that `encode_first` gave."""
        if compensate is not None:
            return self._engine.finish(infrared, visible, compensate)
        return self._once((id(infrared), id(visible)), partial(self._engine.finish, infrared, visible))

    def _once(self, key: Any, make: Callable[[], T]) -> T:
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made


def _bytes(image: Tensor) -> bytes:
    return image.cpu().contiguous().numpy().tobytes()


@dataclass(frozen=True)
class Seen:
    """What a closed loop takes of a look."""

    feature: Tensor


class FirstLooks(nn.Module):
    """A task network that looks at each image once.

    Loops around one fusion network begin with the same look at the same neutral image; this is what it costs.

    Args:
        network: The network.
    """

    def __init__(self, network: TaskNetwork) -> None:
        super().__init__()
        self.network = network
        self.seen: dict[bytes, Seen] = {}

    def forward(self, images: Tensor) -> Seen:
        """The feature of the images."""
        key = _bytes(images)
        if key not in self.seen:
            with looking([self.network]):
                self.seen[key] = Seen(self.network(images).feature)
        return self.seen[key]
