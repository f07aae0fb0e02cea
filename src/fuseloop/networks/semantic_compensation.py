"""RSC, the semantic compensation of CLDyN (arXiv 2604.08924): it changes the features of VFN for a task network.

A task network has looked at the fused image and left a *feature* (section "Requirement-driven semantic compensation").
Between two blocks of each VFN encoder an A2SI block reads it, chooses for each of M branches a kernel size and dilation
and a vector of the shared bank, makes convolution kernels of the vectors, and adds what these see in the features:

    features + strength × zero-conv(mean over branches(LReLU(norm(features ⊛ kernels of the branch))))

The zero-conv starts at zero, so the closed loop starts as the open loop, bit for bit.

There are two forms with the same parameters. `A2SI` is the method with its defects mended: every part learns,
evaluation is deterministic and no image depends on its batch, no statistics mix tasks, and it costs a fraction of VFN.
`PublishedA2SI` computes what the published implementation does, for its checkpoints. Submodule names follow the
published state dictionaries. `ABLATIONS` are the mended form without one of its parts, to measure what that is worth.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseloop.errors import ConfigurationError
from fuseloop.networks.vfn import CHANNELS, LEAK

DILATIONS = (1, 1, 2, 3)
"""Dilation of each configuration; configuration 0 has 1×1 kernels, the others 3×3."""

GRID = 4
"""Cells on each side of the grid to which features are pooled."""

STRIDE = 16
"""Pixels on each side of a cell to which image features are pooled before they are summarised."""

CODES = 32
"""Number of cosine codes under which the sequence of a requirement is averaged."""

_EMBEDDING = 16  # e1, the length of a prototype
_STRUCTURE = 8  # channels of each of the two summaries that the structure is chosen from
_GUMBEL_TEMPERATURE = 0.5
_STRIP = 16  # rows at a time of a branch whose 128 channels at full resolution would not fit the cache
_CHUNK = 1 << 14  # elements at a time of a sequence of up to millions


class Adaptation(NamedTuple):
    """What an A2SI block has decided for each image; B images, M branches.

    Attributes:
        logits: How well each configuration suits each branch, a cosine in [-1, 1], B×M×4.
        configurations: The chosen configurations, B×M int64, see `DILATIONS`.
        query: What the vectors are compared with, B×e2.
        vectors: The chosen vectors within the sub-banks of the configurations, B×M int64.
        basis: These vectors, B×M×e2.
        pointwise: Kernels for the branches with configuration 0, B×M×8×8×1×1.
        spatial: Kernels for the other branches, B×M×8×8×3×3.
    """

    logits: Tensor
    configurations: Tensor
    query: Tensor
    vectors: Tensor
    basis: Tensor
    pointwise: Tensor
    spatial: Tensor


def describe(feature: Tensor) -> Tensor:
    """Reduces the feature of any task network to a requirement of one layout: a grid of cells with RMS 1.

    What it makes is small and comparable between images of different sizes, and describing it again changes nothing;
    requirements can be stored and averaged.

    Args:
        feature: A map B×C×h×w, or tokens B×N×C in raster order; any sizes.

    Returns:
        B×C×4×4, channels before cells, root mean square 1 in each image; zero where the feature is zero.

    Raises:
        ConfigurationError: The feature is neither a map nor tokens, or is empty.
    """
    if feature.ndim not in (3, 4) or feature.numel() == 0:
        raise ConfigurationError(
            f"the closed loop feeds back a map B×C×h×w or tokens B×N×C, got a feature of shape {tuple(feature.shape)}; "
            "take the feature of another layer of the task network"
        )
    if feature.ndim == 4:
        cells = F.adaptive_avg_pool2d(feature, GRID)
    else:
        cells = torch.unflatten(F.adaptive_avg_pool1d(feature.transpose(1, 2), GRID * GRID), 2, (GRID, GRID))
    return _unit_rms(cells)


def _unit_rms(x: Tensor) -> Tensor:
    """Divides each image by its root mean square."""
    rms = x.flatten(1).square().mean(dim=1).sqrt() + 1e-8
    return x / rms.view(-1, *[1] * (x.ndim - 1))


def gumbel(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard Gumbel noise of the shape of a tensor."""
    return -torch.empty_like(like).exponential_(generator=generator).log()


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The value of `hard`, exactly, with the gradient of `soft`."""
    return hard + (soft - soft.detach())


def ranks(configurations: Tensor) -> tuple[Tensor, Tensor]:
    """Which place each branch has among the branches of its image with the same configuration, and the first of them.

    Args:
        configurations: B×M int64.

    Returns:
        Rank from 0, and index of the first branch with the same configuration, both B×M int64.
    """
    same = configurations[:, :, None] == configurations[:, None, :]
    return same.tril(-1).sum(-1), same.int().argmax(-1)


def responses(features: Tensor, adaptation: Adaptation) -> Tensor:
    """Convolves each image with the kernels of its branches, zero border, the chosen configurations alone.

    One grouped convolution for each configuration that occurs. When it is exported, where the choice of an image may
    not change the graph, all kernels are laid into 7×7 frames instead.

    Args:
        features: B×8×H×W.
        adaptation: What was decided for these images.

    Returns:
        B×M×8×H×W; the branches of an image are sorted by configuration.
    """
    if torch.compiler.is_exporting() or features.is_meta:
        return _convolve(features, frames(adaptation), None, padding=3)
    parts, images = [], []
    for configuration, chosen in _by_configuration(adaptation.configurations):
        kernels = adaptation.pointwise if configuration == 0 else adaptation.spatial
        dilation = DILATIONS[configuration]
        padding = 0 if configuration == 0 else dilation
        parts.append(_convolve(features, kernels[chosen], chosen[0], padding=padding, dilation=dilation))
        images.append(chosen[0])
    together = torch.cat(parts) if len(parts) > 1 else parts[0]
    if len(features) > 1:
        together = together[torch.cat(images).argsort(stable=True)]
    return torch.unflatten(together, 0, (len(features), -1))


def _by_configuration(configurations: Tensor) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    """Each configuration that occurs, with the images and branches that chose it."""
    for configuration in sorted(set(configurations.flatten().tolist())):
        images, branches = (configurations == configuration).nonzero(as_tuple=True)
        yield configuration, (images, branches)


def _convolve(features: Tensor, kernels: Tensor, images: Tensor | None, *, padding: int, dilation: int = 1) -> Tensor:
    """Kernel n on the image `images[n]`: n×8×8×k×k to n×8×H×W. Without `images`, kernels B×M×… on all, to B×M×8×H×W."""
    if images is None:
        folded, groups, shape = features.flatten(0, 1)[None], len(features), kernels.shape[:3]
        kernels = kernels.flatten(0, 1)
    elif len(features) == 1:  # one image needs no copy of itself for each branch
        folded, groups, shape = features, 1, kernels.shape[:2]
    else:
        folded, groups, shape = features[images].flatten(0, 1)[None], len(images), kernels.shape[:2]
    response = F.conv2d(folded, kernels.flatten(0, 1), padding=padding, dilation=dilation, groups=groups)
    return torch.unflatten(response[0], 0, shape)


def frames(adaptation: Adaptation) -> Tensor:
    """The kernel of every branch in a frame of zeros that holds any configuration, B×M×8×8×7×7."""
    laid = F.pad(adaptation.pointwise, (3, 3, 3, 3)) * _is(adaptation, 0)
    for configuration, dilation in enumerate(DILATIONS[1:], start=1):
        spread = adaptation.spatial.new_zeros(*adaptation.spatial.shape[:-2], 7, 7)
        taps = slice(3 - dilation, 4 + dilation, dilation)
        spread[..., taps, taps] = adaptation.spatial
        laid = laid + spread * _is(adaptation, configuration)
    return laid


def _is(adaptation: Adaptation, configuration: int) -> Tensor:
    """1 where a branch has a configuration, else 0, B×M×1×1×1×1."""
    return (adaptation.configurations == configuration)[..., None, None, None, None].to(adaptation.basis.dtype)


def cosine_codes(channels: int, like: Tensor) -> Tensor:
    """Codes under which a sequence of grid cells is averaged; code 0 is the mean.

    Each is a cosine over the channels times one over the rows and one over the columns of the grid. A mean alone would
    not change when channels trade places, so that all images of a task look alike. All codes of noise are of the same
    order.

    Args:
        channels: Number C of channels.
        like: A tensor of the wanted type and device.

    Returns:
        32×16C, in the order of a flattened C×4×4.
    """

    def cosines(length: int, count: int) -> Tensor:
        position = (torch.arange(length, device=like.device) + 0.5) / length
        frequency = torch.arange(count, device=like.device)[:, None]
        return torch.cos(torch.pi * frequency * position) * (1.0 + (frequency > 0)).sqrt()

    across = cosines(GRID, 2) / GRID
    cells = torch.einsum("iy,jx->ijyx", across, across).reshape(4, 1, 1, GRID * GRID)
    along = cosines(channels, CODES // 4)
    along = torch.cat([along[:1] / channels, along[1:] / channels**0.5])
    return (cells * along[None, :, :, None]).reshape(CODES, channels * GRID * GRID).to(like.dtype)


def _cells(length: int, like: Tensor) -> Tensor:
    """Weights that average a length in cells of 16, the last of which may be smaller; cells×length.

    Pooling by products exports for any size, which pooling with a rounded up number of cells does not.
    """
    cell = torch.arange(length, device=like.device) // STRIDE
    inside = cell == torch.arange((length + STRIDE - 1) // STRIDE, device=like.device)[:, None]
    return inside.to(like.dtype) / inside.sum(dim=1, keepdim=True)


class BasisQuery(nn.Module):
    """Parameters of the query with which vectors are selected (`bv_f`): summaries of task and image, and an MLP."""

    def __init__(self, width: int, norm: type[nn.BatchNorm2d] | type[_ImageNorm]) -> None:
        super().__init__()
        self.p_task_f = _sequence_convolutions(width // 4, width // 2)
        self.p_img_f = nn.Sequential(
            nn.Conv2d(CHANNELS, width // 4, 3, padding=1, bias=False),
            norm(width // 4),
            nn.LeakyReLU(LEAK),
            nn.Conv2d(width // 4, width // 2, 3, padding=1, bias=False),
            norm(width // 2),
            nn.LeakyReLU(LEAK),
        )
        self.mlp = _mlp(width, width // 4, width)


def _sequence_convolutions(hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(1, hidden, 3, padding=1, bias=False),
        nn.LeakyReLU(LEAK),
        nn.Conv1d(hidden, outputs, 3, padding=1, bias=False),
    )


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, outputs))


class _ImageNorm(nn.GroupNorm):
    """Normalises each image by itself, over all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)


class SemanticInjection(nn.Module, ABC):
    """What both forms of A2SI share: the parameters and the order of the steps.

    M=4 and e2=256 have 214,964 parameters, and 64 values of prototypes.

    Args:
        branches: Number M of dynamic convolutions.
        width: Length e2 of the basis vectors, a multiple of 4.

    Attributes:
        possible: The configurations that a branch can have.
        reads_bank: Whether kernels are made of vectors of the bank.

    Raises:
        ValueError: `branches` or `width` is not possible.
    """

    possible: ClassVar[tuple[int, ...]] = tuple(range(len(DILATIONS)))
    reads_bank: ClassVar[bool] = True
    norm: type[nn.BatchNorm2d] | type[_ImageNorm]
    orthogonal_convolutional_prototypes: Tensor

    def __init__(self, branches: int = 4, width: int = 256) -> None:
        super().__init__()
        if branches < 1:
            raise ValueError(f"A2SI needs at least 1 branch, got {branches}")
        if width < 4 or width % 4:
            raise ValueError(f"the length of basis vectors must be a multiple of 4, got {width}")
        self.branches = branches
        self.width = width
        # Prototypes are no parameters: trained, they would drift together until they tell no configurations apart.
        prototypes = nn.init.orthogonal_(torch.empty(len(DILATIONS), _EMBEDDING))
        self.register_buffer("orthogonal_convolutional_prototypes", prototypes)
        self.bv_f = BasisQuery(width, self.norm)
        self.p_task_f = _sequence_convolutions(4, _STRUCTURE)
        self.p_img_f = nn.Sequential(
            nn.Conv2d(CHANNELS, _STRUCTURE, 3, padding=1, bias=False), self.norm(_STRUCTURE), nn.LeakyReLU(LEAK)
        )
        self.a_task_img = _mlp(2 * _STRUCTURE, _EMBEDDING * branches // 2, _EMBEDDING * branches)
        self.mlp_1x1 = _mlp(width, width // 4, CHANNELS * CHANNELS)
        self.mlp_3x3 = _mlp(width, width // 4, CHANNELS * CHANNELS * 9)
        self.B_LR = nn.Sequential(self.norm(CHANNELS), nn.LeakyReLU(LEAK, inplace=True))  # of 8M channels
        self.zc = nn.Conv2d(CHANNELS, CHANNELS, 1)
        for parameter in self.zc.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        features: Tensor,
        requirement: Tensor,
        bank: Tensor,
        *,
        strength: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Compensated features: `inject` of what `adapt` decides."""
        return self.inject(features, self.adapt(features, requirement, bank, generator=generator), strength=strength)

    def adapt(
        self, features: Tensor, requirement: Tensor, bank: Tensor, *, generator: torch.Generator | None = None
    ) -> Adaptation:
        """Decides for whole frames.

        Args:
            features: Image features, B×8×H×W.
            requirement: What this form's `describe` made of the feature of the task network, first dimension B.
            bank: Basis vectors, 4×V×e2 with V at least M.
            generator: Makes the noise of training.
        """
        seen = self.look(features)
        logits, choice = self.structure(requirement, seen, generator)
        configurations = choice.argmax(dim=2)
        query = self.query(requirement, seen)
        vectors, basis = self.read(bank, query, choice, configurations)
        return Adaptation(
            logits,
            configurations,
            query,
            vectors,
            basis,
            torch.unflatten(self.mlp_1x1(basis), 2, (CHANNELS, CHANNELS, 1, 1)),
            torch.unflatten(self.mlp_3x3(basis), 2, (CHANNELS, CHANNELS, 3, 3)),
        )

    def structure(self, requirement: Tensor, seen: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """How well each configuration suits each branch, and what `choose` makes of that, B×M×4 both."""
        summaries = [self.summarise(self.p_task_f, requirement), self.structure_of(seen)]
        embedding = torch.unflatten(self.a_task_img(torch.cat(summaries, dim=1)), 1, (_EMBEDDING, self.branches))
        prototypes = F.normalize(self.orthogonal_convolutional_prototypes, dim=1)
        logits = (prototypes @ F.normalize(embedding, dim=1)).transpose(1, 2)
        return logits, self.choose(logits, generator)

    def read(self, bank: Tensor, query: Tensor, choice: Tensor, configurations: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors that the query selects: their indices in the sub-banks, B×M, and they themselves, B×M×e2."""
        cosines = F.normalize(query, dim=1) @ F.normalize(bank.flatten(0, 1), dim=1).T
        vectors, weights = self.select(torch.unflatten(cosines, 1, bank.shape[:2]), choice, configurations)
        return vectors, weights.flatten(2) @ bank.flatten(0, 1)

    def inject(self, features: Tensor, adaptation: Adaptation, *, strength: float = 1.0) -> Tensor:
        """Adds the compensation, B×8×H×W to the same shape.

        Args:
            features: Image features.
            adaptation: What was decided for them.
            strength: Factor of what is added; 0 leaves the features as they are, bit for bit.
        """
        if strength == 0:
            return features
        seen: Tensor = self.activate(responses(features, adaptation))
        compensation: Tensor = self.zc(seen)
        return features + (compensation if strength == 1 else strength * compensation)

    @staticmethod
    @abstractmethod
    def describe(feature: Tensor) -> Tensor:
        """The requirement that the feature of a task network stands for."""

    @abstractmethod
    def look(self, features: Tensor) -> Tensor:
        """What the summaries see of the image features."""

    @abstractmethod
    def summarise(self, convolutions: nn.Sequential, requirement: Tensor) -> Tensor:
        """Reduces a requirement by two Conv1d to one number for each of their outputs, B×outputs."""

    def structure_of(self, seen: Tensor) -> Tensor:
        """Summary of the image that the structure is chosen from, B×8."""
        return _average(self.p_img_f(seen))

    @abstractmethod
    def query(self, requirement: Tensor, seen: Tensor) -> Tensor:
        """What the vectors of the bank are compared with, B×e2."""

    @abstractmethod
    def choose(self, logits: Tensor, generator: torch.Generator | None) -> Tensor:
        """Chooses a configuration for each branch: logits B×M×4 to one-hot B×M×4."""

    @abstractmethod
    def select(self, cosines: Tensor, choice: Tensor, configurations: Tensor) -> tuple[Tensor, Tensor]:
        """Selects a vector for each branch; branches with the same configuration take the best ones in turn.

        Args:
            cosines: Of the query and every vector, B×4×V.
            choice: What `choose` gave, B×M×4.
            configurations: The same as indices, B×M.

        Returns:
            Index of each vector in its sub-bank, B×M, and weights of all vectors of the bank, one-hot, B×M×4×V.
        """

    @abstractmethod
    def activate(self, response: Tensor) -> Tensor:
        """Norm, leaky ReLU and mean over the branches: B×M×8×H×W to B×8×H×W."""


def _average(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


class A2SI(SemanticInjection):
    """A2SI as fuseloop trains it.

    What differs from the published form, and why:

    * Evaluation takes the best configuration, without noise. Training adds Gumbel noise from a passed generator to the
      cosines × 10; without the factor the noise decides more than half of all choices.
    * Vectors are selected straight through: the best in turn forward, a softmax of those still free backward, with
      which the query and the whole bank learn. Every branch has its own gradient to its configuration.
    * Norms look at one image at a time.
    * The requirement has one layout (`describe`) and is averaged under codes that tell channels and cells apart.
    * Image features are averaged over 16×16 pixels before they are summarised: the sums are over the frame anyway.

    Attributes:
        logit_scale: Factor of the cosines before noise is added; a training may raise it.
        temperature: Of the softmax by which the selection of vectors learns.
    """

    norm: type[nn.BatchNorm2d] | type[_ImageNorm] = _ImageNorm
    describe = staticmethod(describe)

    def __init__(self, branches: int = 4, width: int = 256) -> None:
        super().__init__(branches, width)
        self.logit_scale = 10.0
        self.temperature = 0.1

    def look(self, features: Tensor) -> Tensor:
        """Means of cells of 16×16 pixels; cells at the border may be smaller."""
        rows, columns = (_cells(length, features) for length in features.shape[2:])
        return F.linear(F.linear(features, columns).transpose(2, 3), rows).transpose(2, 3)

    def summarise(self, convolutions: nn.Sequential, requirement: Tensor) -> Tensor:
        """Averages output k under code k (modulo 32).

        The second convolution is linear under an average, so the codes are applied to its inputs, shifted for each tap.
        """
        first, activation, second = convolutions
        assert isinstance(second, nn.Conv1d)
        hidden = activation(first(requirement.flatten(1)[:, None]))
        codes = cosine_codes(requirement.shape[1], hidden)
        code_of = torch.arange(second.out_channels, device=hidden.device) % CODES
        codes = codes[: second.out_channels]
        summary = torch.zeros((), dtype=hidden.dtype, device=hidden.device)
        for tap, shift in enumerate((1, 0, -1)):
            # Tap 0 reads the element before: what is before the first is the zero border.
            shifted = F.pad(codes, (-shift, shift))
            moments = hidden @ shifted.T
            summary = summary + torch.einsum("kj,bjk->bk", second.weight[:, :, tap], moments[:, :, code_of])
        return summary

    def query(self, requirement: Tensor, seen: Tensor) -> Tensor:
        """From the codes of the requirement and the means of the image features."""
        image = _average(self.bv_f.p_img_f(seen))
        query: Tensor = self.bv_f.mlp(torch.cat([self.summarise(self.bv_f.p_task_f, requirement), image], dim=1))
        return query

    def choose(self, logits: Tensor, generator: torch.Generator | None) -> Tensor:
        """The largest logit; in training with noise, and straight through."""
        scaled = self.logit_scale * logits
        if self.training:
            scaled = scaled + gumbel(scaled, generator)
        hard = F.one_hot(scaled.argmax(dim=2), len(DILATIONS)).to(scaled.dtype)
        return straight_through(hard, (scaled / _GUMBEL_TEMPERATURE).softmax(dim=2))

    def select(self, cosines: Tensor, choice: Tensor, configurations: Tensor) -> tuple[Tensor, Tensor]:
        """Straight through: a softmax of the vectors that the branches before have left."""
        own = torch.einsum("bmt,btv->bmv", choice, cosines)
        order = own.detach().topk(self.branches, dim=2).indices
        rank, _ = ranks(configurations)
        vectors = order.gather(2, rank[..., None])[..., 0]
        earlier = torch.arange(self.branches, device=rank.device) < rank[..., None]
        taken = torch.zeros_like(own, dtype=torch.bool).scatter(2, order, earlier)
        soft = (own / self.temperature).masked_fill(taken, -torch.inf).softmax(dim=2)
        hard = F.one_hot(vectors, own.shape[2]).to(own.dtype)
        return vectors, choice[..., None] * straight_through(hard, soft)[:, :, None]

    def activate(self, response: Tensor) -> Tensor:
        """The norm is over all branches of an image, so that their relative size matters."""
        norm, activation = self.B_LR
        assert isinstance(norm, nn.GroupNorm)
        branches = response.shape[1]
        normed = F.group_norm(
            response.flatten(1, 2), 1, norm.weight.repeat(branches), norm.bias.repeat(branches), norm.eps
        )
        return torch.unflatten(activation(normed), 1, (branches, -1)).mean(dim=1)


class PublishedA2SI(SemanticInjection):
    """A2SI as the published implementation computes it, with its defects, for its checkpoints.

    The query gets no gradient, of branches with the same configuration only the first one's choice does, norms are
    batch norms, and Gumbel noise chooses configurations in training, and in evaluation when a generator is given
    (published evaluation has this noise; without it results can be repeated). Only the prototypes do not drift here.

    The numbers are the published ones; the work is less. The second Conv1d of a summary is linear under the mean, so it
    needs nothing but the sum and the two ends of its input, and the query branch of the image runs in strips.
    """

    norm = nn.BatchNorm2d

    @staticmethod
    def describe(feature: Tensor) -> Tensor:
        """The feature as it is; it is read in the order in which it lies in memory.

        Raises:
            ConfigurationError: It has fewer than three dimensions, or is empty.
        """
        if feature.ndim < 3 or feature.numel() == 0:
            raise ConfigurationError(
                f"the closed loop feeds back a feature of at least three dimensions, got shape {tuple(feature.shape)}; "
                "take the feature of another layer of the task network"
            )
        return feature

    def look(self, features: Tensor) -> Tensor:
        """Everything, at full resolution."""
        return features

    def summarise(self, convolutions: nn.Sequential, requirement: Tensor) -> Tensor:
        """The mean over the whole sequence."""
        return _mean_over_sequence(convolutions, requirement)

    def query(self, requirement: Tensor, seen: Tensor) -> Tensor:
        """As published; no gradient would reach it."""
        with torch.no_grad():
            task = self.summarise(self.bv_f.p_task_f, _unit_rms(requirement))
            image = _average(self.bv_f.p_img_f(seen)) if self.training else _average_in_strips(self.bv_f.p_img_f, seen)
            query: Tensor = self.bv_f.mlp(torch.cat([task, image], dim=1))
            return query

    def choose(self, logits: Tensor, generator: torch.Generator | None) -> Tensor:
        """Straight-through Gumbel-softmax; without noise in evaluation without a generator."""
        if self.training or generator is not None:
            logits = logits + gumbel(logits, generator)
        hard = F.one_hot(logits.argmax(dim=2), len(DILATIONS)).to(logits.dtype)
        return straight_through(hard, (logits / _GUMBEL_TEMPERATURE).softmax(dim=2))

    def select(self, cosines: Tensor, choice: Tensor, configurations: Tensor) -> tuple[Tensor, Tensor]:
        """Each group of branches reads the sub-bank of its first one."""
        index = configurations[..., None].expand(-1, -1, cosines.shape[2])
        order = cosines.gather(1, index).topk(self.branches, dim=2).indices
        rank, first = ranks(configurations)
        vectors = order.gather(2, rank[..., None])[..., 0]
        hard = F.one_hot(vectors, cosines.shape[2]).to(choice.dtype)
        read = choice.gather(1, first[..., None].expand_as(choice))
        return vectors, read[..., None] * hard[:, :, None]

    def activate(self, response: Tensor) -> Tensor:
        """The batch norm is over all images and branches."""
        return _branch_by_branch(self.B_LR, response)


def _mean_over_sequence(convolutions: nn.Sequential, requirement: Tensor) -> Tensor:
    """The mean of two Conv1d over a flattened requirement, B×outputs, some elements at a time."""
    first, activation, second = convolutions
    assert isinstance(first, nn.Conv1d)
    assert isinstance(second, nn.Conv1d)
    sequence = F.pad(requirement.flatten(1)[:, None], (1, 1))
    length = sequence.shape[2] - 2
    total = torch.zeros((), dtype=sequence.dtype, device=sequence.device)
    ends = []
    for start in range(0, length, _CHUNK):
        stop = min(start + _CHUNK, length)
        hidden = activation(F.conv1d(sequence[:, :, start : stop + 2], first.weight))
        total = total + hidden.sum(dim=2)
        ends += [hidden[:, :, 0]] if start == 0 else []
        ends += [hidden[:, :, -1]] if stop == length else []
    # Tap 0 reads the element before each, which is all but the last; tap 2 the one after, all but the first.
    sums = torch.stack([total - ends[1], total, total - ends[0]], dim=2)
    return torch.einsum("kjt,bjt->bk", second.weight, sums) / length


def _branch_by_branch(activate: nn.Module, response: Tensor) -> Tensor:
    """Batch norm and leaky ReLU of every branch as if it were an image, and their mean: B×M×8×H×W to B×8×H×W."""
    activated: Tensor = activate(response.flatten(0, 1))
    return torch.unflatten(activated, 0, response.shape[:2]).mean(dim=1)


def _average_in_strips(convolutions: nn.Sequential, x: Tensor) -> Tensor:
    """Mean over the pixels of two convolutions with batch norms in evaluation mode, some rows at a time.

    The norms are folded into the convolutions. No strip leaves the cache, where the whole would be 192 channels.
    """
    first, second = (_fold(convolutions[index], convolutions[index + 1]) for index in (0, 3))
    height, width = x.shape[2:]
    padded = F.pad(x, (1, 1, 1, 1))
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for top in range(0, height, _STRIP):
        bottom = min(top + _STRIP, height)
        above, below = int(top > 0), int(bottom < height)
        hidden = F.leaky_relu_(F.conv2d(padded[:, :, top - above : bottom + below + 2], *first), LEAK)
        if not (above and below):  # beyond the image there are zeros, not what the first convolution makes of zeros
            hidden = F.pad(hidden, (0, 0, 1 - above, 1 - below))
        total = total + F.leaky_relu_(F.conv2d(hidden, *second, padding=(0, 1)), LEAK).sum(dim=(2, 3))
    return total / (height * width)


def _fold(convolution: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution without bias followed by a batch norm in evaluation mode."""
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return convolution.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale


class FixedStructure(A2SI):
    """Without the choice of structures: every branch has 3×3 kernels, not dilated."""

    possible = (1,)

    def __init__(self, branches: int = 4, width: int = 256) -> None:
        super().__init__(branches, width)
        del self.p_task_f, self.p_img_f, self.a_task_img, self.orthogonal_convolutional_prototypes

    def structure(self, requirement: Tensor, seen: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """The same for every image."""
        fixed = seen.new_zeros(len(seen), self.branches, len(DILATIONS))
        fixed[:, :, self.possible[0]] = 1
        return fixed, fixed


class NoBank(A2SI):
    """Without the bank: kernels are made of the query itself, so that branches with one configuration have the same.

    How much a branch counts then teaches its choice.
    """

    reads_bank = False

    def read(self, bank: Tensor, query: Tensor, choice: Tensor, configurations: Tensor) -> tuple[Tensor, Tensor]:
        """The query for every branch."""
        chosen = choice.gather(2, configurations[..., None])  # 1, with the gradient of the choice
        return torch.zeros_like(configurations), chosen * query[:, None]


class PlainConvolution(A2SI):
    """Without the requirement: M plain 3×3 convolutions in place of those that are made for a task and an image."""

    possible = (1,)
    reads_bank = False

    def __init__(self, branches: int = 4, width: int = 256) -> None:
        super().__init__(branches, width)
        del self.p_task_f, self.p_img_f, self.a_task_img, self.orthogonal_convolutional_prototypes
        del self.bv_f, self.mlp_1x1, self.mlp_3x3
        plain = nn.Conv2d(CHANNELS, branches * CHANNELS, 3)  # for the weights that it begins with
        self.kernels = nn.Parameter(torch.unflatten(plain.weight.detach(), 0, (branches, CHANNELS)))

    def adapt(
        self, features: Tensor, requirement: Tensor, bank: Tensor, *, generator: torch.Generator | None = None
    ) -> Adaptation:
        """The same kernels for every image."""
        images, shape = len(features), (len(features), self.branches)
        fixed = features.new_zeros(*shape, len(DILATIONS))
        fixed[:, :, self.possible[0]] = 1
        return Adaptation(
            logits=fixed,
            configurations=fixed.argmax(dim=2),
            query=features.new_zeros(images, 0),
            vectors=fixed.new_zeros(shape, dtype=torch.int64),
            basis=features.new_zeros(*shape, 0),
            pointwise=features.new_zeros(*shape, CHANNELS, CHANNELS, 1, 1),
            spatial=self.kernels.expand(images, *self.kernels.shape),
        )


class HardSelection(A2SI):
    """Without the gradient of the query, as published: of the bank only what was selected learns (D1)."""

    def select(self, cosines: Tensor, choice: Tensor, configurations: Tensor) -> tuple[Tensor, Tensor]:
        """The same vectors."""
        vectors, _ = super().select(cosines, choice, configurations)
        hard = F.one_hot(vectors, cosines.shape[2]).to(choice.dtype)
        return vectors, choice[..., None] * hard[:, :, None]


class NoisyChoice(A2SI):
    """Without determinism, as published: noise on cosines that are not scaled, also in evaluation (D2).

    Without a passed generator the noise is of the global one.
    """

    def choose(self, logits: Tensor, generator: torch.Generator | None) -> Tensor:
        """By the cosines and as much noise."""
        noisy = logits + gumbel(logits, generator)
        hard = F.one_hot(noisy.argmax(dim=2), len(DILATIONS)).to(noisy.dtype)
        return straight_through(hard, (noisy / _GUMBEL_TEMPERATURE).softmax(dim=2))


class BatchNorms(A2SI):
    """Without norms of single images, as published: by the batch in training and by running statistics after it (D8).

    In training what is made of an image depends on the others of its batch, and statistics mix tasks.
    """

    norm = nn.BatchNorm2d

    def activate(self, response: Tensor) -> Tensor:
        """The batch norm is over all images and branches."""
        return _branch_by_branch(self.B_LR, response)


class FlatDescriptor(A2SI):
    """Without the descriptor, as published: the mean over the feature, flattened in the order that it has (D9)."""

    describe = staticmethod(PublishedA2SI.describe)

    def summarise(self, convolutions: nn.Sequential, requirement: Tensor) -> Tensor:
        """The mean over the whole sequence."""
        return _mean_over_sequence(convolutions, requirement)

    def query(self, requirement: Tensor, seen: Tensor) -> Tensor:
        """As published of the feature with an RMS of 1, from which the structure is not chosen."""
        return super().query(_unit_rms(requirement), seen)


ABLATIONS: dict[str, type[A2SI]] = {
    "bank": NoBank,
    "choice": FixedStructure,
    "requirement": PlainConvolution,
    "query_gradient": HardSelection,
    "determinism": NoisyChoice,
    "image_norm": BatchNorms,
    "descriptor": FlatDescriptor,
}
"""What the mended form can go without: what it then is. The last four undo what differs from the published form."""


def mended_without(parts: Collection[str]) -> type[A2SI]:
    """The mended form without some of its parts.

    Args:
        parts: Keys of `ABLATIONS`.

    Raises:
        ValueError: There is no such part, or "requirement" is not the only one: of the rest it leaves nothing.
    """
    for part in parts:
        if part not in ABLATIONS:
            near = difflib.get_close_matches(part, ABLATIONS, n=1)
            guess = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"A2SI cannot go without {part!r}; {guess}Known: {', '.join(ABLATIONS)}")
    if "requirement" in parts and len(parts) > 1:
        raise ValueError("without the requirement there is nothing else to go without; give 'requirement' alone")
    forms = [ABLATIONS[part] for part in ABLATIONS if part in parts]
    return A2SI if not forms else forms[0] if len(forms) == 1 else type("A2SI", tuple(forms), {})


class SemanticCompensation(nn.Module):
    """RSC for both modalities of a VFN, with the bank that they share.

    L=2 has 462,696 parameters: twice A2SI and the bank.

    Its call is a `Compensate` for `VFN.encode_rest` once a requirement is bound:

        first = network.encode_first(infrared, luma)          # shared with the open loop
        requirement = compensation.describe(feature)          # of the task network that saw the fused image
        features = network.encode_rest(*first, partial(compensation, requirement=requirement))
        customised = network.decode(features)

    Args:
        depth: Number L of blocks of the VFN, at least 2; there are L-1 A2SI blocks for each modality.
        branches: Number M of dynamic convolutions of a block.
        width: Length e2 of the basis vectors.
        vectors: Basis vectors of each configuration, at least M; none without a bank.
        reference_compat: Whether the blocks compute what the published implementation does (`PublishedA2SI`).
        without: Parts that the mended form goes without, keys of `ABLATIONS`.

    Attributes:
        bvb: The bank, 4×V×e2. In the mended form the directions of its vectors count, see `bank`.
        usage: How often each vector was selected in training since it was last zeroed, 4×V; not saved.

    Raises:
        ValueError: A number is not possible, or there is no such part.
    """

    usage: Tensor

    def __init__(
        self,
        depth: int = 2,
        *,
        branches: int = 4,
        width: int = 256,
        vectors: int = 32,
        reference_compat: bool = False,
        without: Collection[str] = (),
    ) -> None:
        super().__init__()
        if isinstance(without, str):
            raise ValueError(f"what it goes without is a list of parts, such as [{without}], not {without!r}")
        if reference_compat and without:
            raise ValueError(f"the published form is as it is; {', '.join(without)} can be left out of the mended one")
        block = PublishedA2SI if reference_compat else mended_without(without)
        if depth < 2:
            raise ValueError(f"compensation stands between blocks: it needs a depth of at least 2, got {depth}")
        if block.reads_bank and vectors < branches:
            raise ValueError(
                f"{branches} branches with the same configuration need {branches} vectors of their own, got {vectors}"
            )
        self.depth = depth
        self.branches = branches
        self.width = width
        self.vectors = vectors = vectors if block.reads_bank else 0
        self.reference_compat = reference_compat
        self.without = tuple(part for part in ABLATIONS if part in without)
        self.rsc_ir = nn.ModuleDict({f"a2si{level}": block(branches, width) for level in range(depth - 1)})
        self.rsc_vi = nn.ModuleDict({f"a2si{level}": block(branches, width) for level in range(depth - 1)})
        self.bvb = nn.Parameter(
            _orthonormal(len(DILATIONS) * vectors, width).view(len(DILATIONS), vectors, width), block.reads_bank
        )
        self.register_buffer("usage", torch.zeros(len(DILATIONS), vectors, dtype=torch.int64), persistent=False)
        self._describe = block.describe

    @property
    def bank(self) -> Tensor:
        """The vectors as the blocks read them, 4×V×e2: of length 1, under `reference_compat` as they are."""
        return self.bvb if self.reference_compat else F.normalize(self.bvb, dim=2)

    @property
    def one_layout(self) -> bool:
        """Whether requirements have one layout and magnitude, so that they can be stored and averaged."""
        return self._describe is describe

    def describe(self, feature: Tensor) -> Tensor:
        """The requirement for a feature of a task network, which is no longer part of a graph.

        In the mended form that is B×C×4×4 (`describe`), under `reference_compat` and without the descriptor the feature
        itself.

        Raises:
            ConfigurationError: The feature has an unusable shape.
        """
        return self._describe(feature.detach())

    def forward(
        self,
        level: int,
        infrared: Tensor,
        visible: Tensor,
        requirement: Tensor,
        *,
        strength: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Compensates what block `level` (0 to L-2) of both encoders made.

        Args:
            level: The block.
            infrared: Its infrared features, B×8×H×W, H and W at least 1.
            visible: Its visible features, the same shape.
            requirement: What `describe` made, first dimension B.
            strength: Factor of the compensation; 0 changes nothing, bit for bit.
            generator: Makes the noise of training, on the device of the features.

        Returns:
            Infrared and visible features, B×8×H×W each.
        """
        if strength == 0:
            return infrared, visible
        bank = self.bank
        compensated = []
        for blocks, features in ((self.rsc_ir, infrared), (self.rsc_vi, visible)):
            block = blocks[f"a2si{level}"]
            assert isinstance(block, SemanticInjection)
            adaptation = block.adapt(features, requirement, bank, generator=generator)
            if self.training and self.vectors:
                self._count(adaptation)
            compensated.append(block.inject(features, adaptation, strength=strength))
        return compensated[0], compensated[1]

    @torch.no_grad()
    def _count(self, adaptation: Adaptation) -> None:
        selected = (adaptation.configurations * self.vectors + adaptation.vectors).flatten()
        self.usage.view(-1).index_add_(0, selected, torch.ones_like(selected))

    def dead_vectors(self) -> Tensor:
        """Which vectors no image has selected in training since `usage` was zeroed, 4×V bool."""
        return self.usage == 0


def _orthonormal(rows: int, columns: int) -> Tensor:
    """Random rows of length 1, orthogonal to each other where there are not more than columns."""
    return F.normalize(nn.init.orthogonal_(torch.empty(rows, columns)), dim=1)
