"""Changes VFN for an instruction: what fuseloop trains in place of T-OAR (arXiv 2411.09387, here `prompt_injection`).

An instruction is a vector, its *embedding*; who makes it of a sentence does not matter here. A small MLP reads it
together with a summary of the image and decides, once for a frame, what happens at each place of the fusion network:

    features × (1 + s·γ) + s·(δ + zero-conv(LReLU(features ⊛ kernel)))

The kernel is a mixture of K basis kernels, γ and δ are a scale and a shift of each channel (FiLM), and s is the
strength that the user sets times how much of an instruction there is: exactly 0 for the null instruction, an embedding
of zeros. The zero-conv, γ and δ start at zero. So before training, for the null instruction and at strength 0 the image
is that of VFN, bit for bit.

What differs from T-DPI, and why: kernels are mixed of a basis and text and image meet in an MLP with activations, for a
hundredth of the parameters; nothing normalises over images, so that no image depends on its batch or on the task that
was trained last, and the strength of a kernel counts; the gate and the reconstruction can be changed too, since the
gate decides whose pixel wins; only a summary of coarse cells looks at the whole frame, so that a frame can be changed
in tiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseloop.errors import ConfigurationError
from fuseloop.networks.vfn import CHANNELS, LEAK, VFN, Compensate

PLACES = ("encoder", "gate", "decoder")
"""Where features can be changed: between encoder blocks, before the gate, before each block of the reconstruction."""

STRIDE = 16
"""Pixels on each side of a cell to which features are averaged before they are summarised."""

_SUMMARY = 16  # channels of the summary of an image, which are averaged and of which the peak is taken
_FULLNESS = 4.0  # how soon a growing embedding is a whole instruction: at length 1 it is one to 98 %


class Change(NamedTuple):
    """What happens at one place to each of N images; C channels in G groups.

    Attributes:
        kernel: Of the convolution, N×C×C/G×3×3.
        offset: Its bias, N×C.
        mixing: Kernel of the zero-conv times s, N×C×C×1×1.
        shift: s·δ, N×C.
        gain: 1 + s·γ, N×C×1×1.
    """

    kernel: Tensor
    offset: Tensor
    mixing: Tensor
    shift: Tensor
    gain: Tensor


def inject(features: Tensor, change: Change) -> Tensor:
    """Changes features, N×C×H×W to the same shape; each pixel looks at its neighbours alone."""
    response = F.leaky_relu_(_convolve(features, change.kernel, change.offset), LEAK)
    return torch.addcmul(_convolve(response, change.mixing, change.shift), features, change.gain)


def _convolve(features: Tensor, kernels: Tensor, offsets: Tensor) -> Tensor:
    """Each image with its own kernel, zero border; all at once as the groups of one convolution."""
    folded = features.flatten(0, 1)
    groups = len(folded) // len(kernels[0, 0])
    padding = len(kernels[0, 0, 0]) // 2
    response = F.conv2d(folded[None], kernels.flatten(0, 1), offsets.flatten(), padding=padding, groups=groups)
    return response.view_as(features)


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What was decided for some images; its methods are the hooks of VFN.

    Attributes:
        changes: By place: "ir0", "vi0" and so on behind encoder blocks, "gate", "decoder0" and so on before blocks of
            the reconstruction. Where there is none, features stay as they are.
    """

    changes: Mapping[str, Change]

    def compensate(self, level: int, infrared: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Changes what encoder block `level` made, two N×8×H×W: a `Compensate`."""
        return self._at(f"ir{level}", infrared), self._at(f"vi{level}", visible)

    def gate(self, features: Tensor) -> Tensor:
        """Changes what the encoders made, N×16×H×W, before it is decoded."""
        return self._at("gate", features)

    def decoder(self, level: int, features: Tensor) -> Tensor:
        """Changes what block `level` of the reconstruction is given, N×8×H×W: a `Condition`."""
        return self._at(f"decoder{level}", features)

    def _at(self, place: str, features: Tensor) -> Tensor:
        change = self.changes.get(place)
        return features if change is None else inject(features, change)


def together(*compensates: Compensate) -> Compensate:
    """Several conditioners at once: each sees the same features, and what they change is added.

    A sentence and the feature of a task network can so steer one image. The order does not matter but for rounding; a
    null instruction behind another conditioner leaves what that one made, bit for bit.

    Args:
        compensates: Such as `Conditioning.compensate`, and a `SemanticCompensation` with its requirement.
    """

    def compensate(level: int, infrared: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        before = (infrared, visible)
        after = before
        for each in compensates:
            made = each(level, *before)
            after = _added(before[0], after[0], made[0]), _added(before[1], after[1], made[1])
        return after

    return compensate


def _added(before: Tensor, after: Tensor, made: Tensor) -> Tensor:
    """`after`, which others made of `before`, with the change that `made` is to it."""
    if made is before:
        return after
    return made if after is before else after + (made - before)


class _Place(nn.Module):
    """The parameters of one place."""

    def __init__(self, channels: int, groups: int, kernels: int, hidden: int) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.empty(kernels, channels, channels // groups, 3, 3))
        self.offsets = nn.Parameter(torch.zeros(kernels, channels))
        self.coefficients = nn.Linear(hidden, kernels)
        self.film = nn.Linear(hidden, 2 * channels)
        self.zc = nn.Conv2d(channels, channels, 1, bias=False)
        # A first mixture is about as large as one kernel, whose size is that of a convolution before a leaky ReLU.
        nn.init.kaiming_normal_(self.basis.view(kernels * channels, -1, 3, 3), a=LEAK)
        nn.init.normal_(self.coefficients.bias, std=kernels**-0.5)
        for parameter in (*self.film.parameters(), *self.zc.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, hidden: Tensor, scale: Tensor) -> Change:
        """The change for each image; hidden N×hidden, scale N×1."""
        coefficients = self.coefficients(hidden)
        kernel = (coefficients @ self.basis.flatten(1)).view(len(hidden), *self.basis.shape[1:])
        gain, shift = (scale * self.film(hidden)).chunk(2, dim=1)
        mixing = scale[..., None, None, None] * self.zc.weight
        return Change(kernel, coefficients @ self.offsets, mixing, shift, 1 + gain[..., None, None])


class InstructionConditioner(nn.Module):
    """Decides for an instruction and an image what happens in a VFN.

    L=2 has 48,024 parameters. The trunk stays as it is, so one VFN serves this and the closed loop:

        first = network.encode_first(infrared, luma)
        conditioning = conditioner(*first, embedding)                  # N×d, a row for each image
        fused = finish(network, *first, conditioning)

    Args:
        depth: Number L of blocks of the VFN.
        embedding: Length d of an embedding.
        kernels: Number K of basis kernels of a place.
        hidden: Width of the MLP.
        places: Which of `PLACES` are changed.

    Attributes:
        halo: Pixels by which the changes widen `VFN.halo`.

    Raises:
        ValueError: A number is not possible, or there is no such place, or none at all.
    """

    def __init__(
        self,
        depth: int = 2,
        *,
        embedding: int = 64,
        kernels: int = 8,
        hidden: int = 64,
        places: Sequence[str] = PLACES,
    ) -> None:
        super().__init__()
        for name, number in (("depth", depth), ("embedding", embedding), ("kernels", kernels), ("hidden", hidden)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        unknown = [place for place in places if place not in PLACES]
        if unknown:
            raise ValueError(f"unknown place {unknown[0]!r}; give some of {', '.join(PLACES)}")
        self.depth = depth
        self.embedding = embedding
        self.kernels = kernels
        self.hidden = hidden
        self.places = tuple(place for place in PLACES if place in places)
        both = 2 * CHANNELS
        sizes: dict[str, tuple[int, int]] = {}  # channels and groups of each place
        if "encoder" in places:
            sizes |= {f"{side}{level}": (CHANNELS, 1) for side in ("ir", "vi") for level in range(depth - 1)}
        if "gate" in places:
            sizes["gate"] = (both, 2)  # the zero-conv mixes the modalities
        if "decoder" in places:
            sizes |= {f"decoder{level}": (CHANNELS, 1) for level in range(depth)}
        if not sizes:
            raise ValueError(f"a VFN of depth {depth} is changed nowhere; give some of {', '.join(PLACES)}")
        self.text = nn.Linear(embedding, hidden)
        self.cell = nn.Conv2d(both, _SUMMARY, 1)
        self.image = nn.Linear(2 * _SUMMARY, hidden, bias=False)
        self.mlp = nn.Linear(hidden, hidden)
        self.changes = nn.ModuleDict({name: _Place(*size, kernels, hidden) for name, size in sizes.items()})

    @property
    def halo(self) -> int:
        """Pixels by which the changes widen `VFN.halo`: one for each place that a pixel passes; 4 for L=2."""
        passed = {"encoder": self.depth - 1, "gate": 1, "decoder": self.depth}
        return sum(passed[place] for place in self.places)

    def forward(
        self, infrared: Tensor, visible: Tensor, embedding: Tensor, strength: float | Tensor = 1.0
    ) -> Conditioning:
        """Decides for whole frames: `adapt` to what `look` sees.

        Args:
            infrared: First of what `VFN.encode_first` made, N×8×H×W.
            visible: Second of it.
            embedding: See `adapt`.
            strength: See `adapt`.
        """
        return self.adapt(self.look(infrared, visible), embedding, strength)

    @staticmethod
    def look(infrared: Tensor, visible: Tensor) -> Tensor:
        """Means of features in cells, all that is seen of the image.

        Cells of 16×16 pixels stand around every sixteenth pixel from the first on; those at the border have fewer, and
        up to seven rows and columns at the far ends are in none.

        Args:
            infrared: First of what `VFN.encode_first` made, N×8×H×W.
            visible: Second of it.

        Returns:
            N×16×(H//16 + 1)×(W//16 + 1).
        """
        cells = [
            F.avg_pool2d(features, STRIDE, padding=STRIDE // 2, count_include_pad=False)
            for features in (infrared, visible)
        ]
        return torch.cat(cells, dim=1)

    @staticmethod
    def look_at_part(infrared: Tensor, visible: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
        """What a part of a frame adds to the cells of the whole, for frames that are never whole in memory.

        The sum of all parts, its first 16 channels divided by the last, is what `look` gives for the frame.

        Args:
            infrared: A part of the first of what `VFN.encode_first` made, N×8×h×w.
            visible: The same part of the second of it.
            top: Its first row in the frame.
            left: Its first column.
            height: Rows of the frame.
            width: Columns of the frame.

        Returns:
            Sums of features, and how many pixels they are of, N×17×(H//16 + 1)×(W//16 + 1).
        """
        sums = torch.cat([infrared, visible, torch.ones_like(visible[:, :1])], dim=1)
        for axis, start, length in ((2, top, height), (3, left, width)):
            cells = length // STRIDE + 1
            pixels = torch.arange(start, start + sums.shape[axis], device=sums.device)
            shape = list(sums.shape)
            shape[axis] = cells + 1  # the last is of those that are in no cell
            sums = sums.new_zeros(shape).index_add(axis, (pixels + STRIDE // 2) // STRIDE, sums)
            sums = sums.narrow(axis, 0, cells)
        return sums

    def adapt(self, cells: Tensor, embedding: Tensor, strength: float | Tensor = 1.0) -> Conditioning:
        """Decides from what was seen of an image, which may be another size of it: a thumbnail for tiles.

        Args:
            cells: What `look` gave, N×16×h×w.
            embedding: The instruction of each image, N×d, of length about 1; shorter ones fade to the null
                instruction, which is zero.
            strength: How much of the change is made, from 0 to 1: one number for all images, or N.

        Raises:
            ConfigurationError: The embedding is not N×d.
        """
        if embedding.shape != (len(cells), self.embedding):
            raise ConfigurationError(
                f"the conditioner needs an embedding of {self.embedding} numbers for each of {len(cells)} images, got "
                f"shape {tuple(embedding.shape)}; encode one instruction for each image by the encoder of its weights"
            )
        if isinstance(strength, int | float) and strength == 0:
            return Conditioning({})
        fullness = 1 - torch.exp(-_FULLNESS * embedding.square().sum(dim=1))
        seen = F.leaky_relu(self.cell(cells), LEAK)
        image = torch.cat([seen.mean(dim=(2, 3)), seen.amax(dim=(2, 3))], dim=1)
        # Of an embedding of length 1 each number is small beside those of an image; √d makes them alike.
        hidden = F.leaky_relu(self.text(embedding * self.embedding**0.5) + self.image(image), LEAK)
        hidden = F.leaky_relu(self.mlp(hidden), LEAK)
        scale = (strength * fullness)[:, None]
        return Conditioning({name: place(hidden, scale) for name, place in self.changes.items()})


def finish(network: VFN, infrared: Tensor, visible: Tensor, conditioning: Conditioning, *others: Compensate) -> Tensor:
    """Makes the image from what `VFN.encode_first` gave.

    Args:
        network: The fusion network.
        infrared: First of what its `encode_first` gave, N×8×H×W.
        visible: Second of it.
        conditioning: What an `InstructionConditioner` decided.
        others: What else changes the features between encoder blocks, see `together`.

    Returns:
        The fused luma, N×1×H×W in [0, 1].
    """
    compensate = together(*others, conditioning.compensate)
    features = network.encode_rest(infrared, visible, compensate)
    return network.decode(conditioning.gate(features), condition=conditioning.decoder)


class InstructedVFN(nn.Module):
    """A VFN and its conditioner as one network, for export.

    Args:
        network: The fusion network.
        conditioner: Its conditioner, of the same depth.

    Raises:
        ValueError: The two have different depths.
    """

    def __init__(self, network: VFN, conditioner: InstructionConditioner) -> None:
        super().__init__()
        if network.depth != conditioner.depth:
            raise ValueError(f"the conditioner is for a VFN of depth {conditioner.depth}, not {network.depth}")
        self.network = network
        self.conditioner = conditioner

    def forward(self, infrared: Tensor, luma: Tensor, embedding: Tensor, strength: float | Tensor = 1.0) -> Tensor:
        """The fused luma, N×1×H×W in [0, 1].

        Args:
            infrared: N×1×H×W in [0, 1]; H and W at least 8.
            luma: Y of the visible image, the same shape and range.
            embedding: See `InstructionConditioner.adapt`.
            strength: See `InstructionConditioner.adapt`.
        """
        first = self.network.encode_first(infrared, luma)
        return finish(self.network, *first, self.conditioner(*first, embedding, strength))
