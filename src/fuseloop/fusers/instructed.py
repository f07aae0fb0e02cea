"""The fuser that is told what the image is for.

A text encoder reads the instruction, and a conditioner changes the fusion network for what was understood. What is not
understood changes nothing: the image is then that of the plain fuser, bit for bit, and a warning says why.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from math import isqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fuseloop.engines import Precision
from fuseloop.engines.conditioned import ConditionedNetwork
from fuseloop.errors import ConfigurationError
from fuseloop.fusers.fuser import (
    WHOLE,
    Align,
    FusedBox,
    Fuser,
    Read,
    check_tile_pixels,
    crop,
    fuse_images,
    fuse_tiles,
)
from fuseloop.fusers.instruction_weights import Instructed, find_instructed, read_instructed
from fuseloop.fusers.kinds import Images
from fuseloop.instructions import HashedEncoder, Instruction, InstructionEncoder, InstructionMatch, NotUnderstood, embed
from fuseloop.instructions.explain import shown
from fuseloop.instructions.understanding import shipped_encoder, understand
from fuseloop.networks.instruction_conditioner import InstructionConditioner
from fuseloop.pairs.images import MAX_PIXELS, Picture
from fuseloop.pairs.levels import INFRARED_DEFAULT, VISIBLE_DEFAULT
from fuseloop.pairs.tiles import TILE_PIXELS, Box, Tile, plan_tiles

KEPT = 256  # sentences whose vectors are kept

Instructions = Instruction | Sequence[Instruction]
"""One instruction for all images, or a list with one for each."""


class _Understood(NamedTuple):
    """An instruction as it was understood, and its embedding, 1×d."""

    match: InstructionMatch
    embedding: Tensor


class InstructedFuser:
    """Fuses infrared with visible images for what an instruction says.

    A fuser is not safe to share between threads.

    Args:
        weights: A name of `fuseloop.fusers.weights.INSTRUCTED`, a weight file of fusion by instruction, or its
            networks, whose weights are taken as they are now.
        encoder: Makes the vectors of sentences: the one that the weights were trained with. By default the shipped one;
            weights of another encoder then need vectors of their tasks, of which the mixture that was understood is
            made. What an encoder other than `HashedEncoder` is given, the shipped one has understood first.
        engine: What makes neutral images and runs the first block of others, see `Fuser`. What an instruction changes
            is run by PyTorch with every engine.
        precision: See `Fuser`; likewise.
        tile_pixels: See `Fuser`. Larger frames are changed in tiles too: the conditioner looks at the whole frame
            first, and the result is the same within 1e-5.
        max_pixels: Larger images are refused; None for no limit.

    Attributes:
        neutral: The fuser of neutral images.
        encoder: What makes the vectors of sentences.
        tasks: What the weights were trained for.
        understood: What was understood in the last call, and a list where it had a list of instructions; None before.

    Raises:
        WeightsError: The name is unknown or no such weights are shipped, or the file is missing, corrupt or foreign.
        ConfigurationError: An option is unknown, or the weights were trained with another encoder.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | Instructed = "toar",
        *,
        encoder: InstructionEncoder | None = None,
        engine: str = "torch",
        precision: Precision = "fp32",
        tile_pixels: int = TILE_PIXELS,
        max_pixels: int | None = MAX_PIXELS,
    ) -> None:
        found = weights if isinstance(weights, Instructed) else read_instructed(find_instructed(weights))
        self.encoder = shipped_encoder() if encoder is None else encoder
        self._vectors = None if self.encoder.id == found.encoder else found.vectors
        if self.encoder.id != found.encoder and (encoder is not None or self._vectors is None):
            raise ConfigurationError(
                f"the weights were trained with the text encoder {found.encoder!r}, and this one is "
                f"{self.encoder.id!r}, whose vectors mean nothing to them; give that one as `encoder`, or weights with "
                "vectors of their tasks and no encoder"
            )
        self._halo = found.network.halo + found.conditioner.halo
        check_tile_pixels(tile_pixels, self._halo)
        self.neutral = Fuser(
            found.network, engine=engine, precision=precision, tile_pixels=tile_pixels, max_pixels=max_pixels
        )
        self.tasks = found.tasks
        self.understood: InstructionMatch | list[InstructionMatch] | None = None
        self._network = ConditionedNetwork(self.neutral.engine, found.network, found.conditioner)
        self._of_text = lru_cache(maxsize=KEPT)(self._read)

    def __repr__(self) -> str:
        return f"InstructedFuser({self.neutral!r} for {', '.join(self.tasks) or 'any task'})"

    def __call__(
        self,
        infrared: Images,
        visible: Images,
        instruction: Instructions = None,
        *,
        strength: float = 1.0,
        infrared_levels: str = INFRARED_DEFAULT,
        visible_levels: str = VISIBLE_DEFAULT,
        align: Align = "none",
    ) -> Any:
        """Fuses one pair or several for what the instruction says.

        Args:
            infrared: See `Fuser.__call__`.
            visible: See `Fuser.__call__`.
            instruction: A sentence in one of `fuseloop.instructions.LANGUAGES`; shares of
                `fuseloop.instructions.INTENTS`, such as {"detection": 0.7, "view": 0.3}; None for the neutral image; or
                a list of these, one for each pair.
            strength: How much of the change is made, from 0 (the neutral image, bit for bit) to 1.
            infrared_levels: See `Fuser.__call__`.
            visible_levels: See `Fuser.__call__`.
            align: See `Fuser.__call__`.

        Returns:
            The fused images in the kind of `visible`. Those whose instruction is not understood are neutral, with the
            warning `NotUnderstood`; `understood` says what was.

        Raises:
            ImageError: An image is of an unsupported kind, unreadable, too small, too large, or not finite.
            PairError: The two differ in number or, with `align="none"`, in size, or there are not as many instructions.
            ConfigurationError: An option or a name in a mixture is unknown, the strength is out of range, or an
                instruction is none.
        """
        options: Any = {"infrared_levels": infrared_levels, "visible_levels": visible_levels, "align": align}
        fuse = partial(self.fuse_picture, strength=strength, **options)
        if isinstance(instruction, str) or not isinstance(instruction, Sequence):
            self.understood = self.understand(instruction)
            return fuse_images(partial(fuse, instruction=instruction), infrared, visible, self.neutral.max_pixels)
        self.understood = [self.understand(one) for one in instruction]
        return fuse_images(fuse, infrared, visible, self.neutral.max_pixels, instruction)

    def understand(self, instruction: Instruction) -> InstructionMatch:
        """What is understood of an instruction, and can be done by these weights.

        Raises:
            ConfigurationError: It is no instruction, or a name in a mixture is unknown.
        """
        return self._understood(instruction).match

    def fuse_picture(
        self,
        infrared: Picture,
        visible: Picture,
        instruction: Instruction = None,
        *,
        strength: float = 1.0,
        infrared_levels: str = INFRARED_DEFAULT,
        visible_levels: str = VISIBLE_DEFAULT,
        align: Align = "none",
    ) -> Picture:
        """Fuses one pair of pictures; arguments, result and errors are those of a call and of `Fuser.fuse_picture`."""
        check_strength(strength)
        match, embedding = self._understood(instruction)
        if not match.understood and _says_something(instruction):
            reason = f"{shown(str(instruction))!r} is not understood, so the image is neutral: {match.reason}"
            warnings.warn(reason, NotUnderstood, stacklevel=2)
        options: Any = {"infrared_levels": infrared_levels, "visible_levels": visible_levels, "align": align}
        if strength == 0 or not match.understood:
            return self.neutral.fuse_picture(infrared, visible, **options)
        pair = self.neutral.open_pair(infrared, visible, **options)
        height, width = visible.pixels.shape[:2]
        return Picture(pair.paint(self._fuse_boxes(height, width, pair.read, embedding, strength)), visible.alpha)

    def _fuse_boxes(
        self, height: int, width: int, read: Read, embedding: Tensor, strength: float
    ) -> Iterator[FusedBox]:
        """Fuses a frame box by box, as `Fuser` does; the conditioner sees all of it before anything is changed."""
        network, tile_pixels = self._network, self.neutral.tile_pixels
        if height * width <= WHOLE * tile_pixels:
            frame = Box(0, 0, height, width)
            infrared, luma = read(frame)
            yield frame, luma, network.fuse(infrared, luma, embedding, strength)
            return
        tiles = plan_tiles(height, width, isqrt(tile_pixels), self._halo)
        conditioning = network.adapt(self._look(tiles, height, width, read), embedding, strength)
        passes = partial(network.pool, conditioning), partial(network.fuse_tile, conditioning)
        yield from fuse_tiles(*passes, tiles, height * width, read)

    def _look(self, tiles: Sequence[Tile], height: int, width: int, read: Read) -> Tensor:
        """`InstructionConditioner.look` at a frame in tiles."""
        total = torch.zeros(1)
        for tile in tiles:
            inner = tile.inner.within(tile.outer)
            first, second = (crop(features, inner) for features in self._network.look(*read(tile.outer)))
            part = InstructionConditioner.look_at_part(first, second, tile.inner.top, tile.inner.left, height, width)
            total = total.to(part.device) + part
        return total[:, :-1] / total[:, -1:]

    def _understood(self, instruction: Instruction) -> _Understood:
        return self._of_text(instruction) if isinstance(instruction, str) else self._read(instruction)

    @torch.no_grad()
    def _read(self, instruction: Instruction) -> _Understood:
        """Reads an instruction: a sentence, shares of a mixture, or None."""
        match = understand(instruction, self.encoder if isinstance(self.encoder, HashedEncoder) else None)
        untaught = [intent for intent in match.mixture if self.tasks and intent not in self.tasks]
        if untaught:
            reason = f"it asks for {untaught[0]}, and these weights were trained for {', '.join(self.tasks)}"
            match = InstructionMatch({}, 0.0, match.matched_terms, match.attributes, match.language, reason)
        if not match.understood:
            return _Understood(match, torch.zeros(1, self.encoder.dim))
        if self._vectors is not None:
            shares = self._vectors.new_tensor([[match.mixture.get(task, 0.0) for task in self.tasks]])
            return _Understood(match, shares @ self._vectors)
        if isinstance(self.encoder, HashedEncoder):
            return _Understood(match, self.encoder.vectors([match]))
        return _Understood(match, embed(self.encoder, [instruction]))


def check_strength(strength: float) -> None:
    """Refuses a strength that is not from 0 to 1.

    Raises:
        ConfigurationError: It is not.
    """
    if not 0 <= strength <= 1:
        raise ConfigurationError(f"the strength of an instruction is from 0 to 1, not {strength}")


def _says_something(instruction: Instruction) -> bool:
    return isinstance(instruction, Mapping) or bool(instruction and instruction.strip())
