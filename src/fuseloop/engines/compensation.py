"""The semantic compensation in the form that engines run: the same function in fewer and cheaper steps.

What a block decides is a few numbers; what it adds is an image. So it runs in two steps. `Decision` chooses a
configuration and a vector of the bank for each branch, and `Injection` adds what the kernels see in the features:

* The kernels are functions of the vectors of the bank alone, so they are a table.
* Only the order of cosines counts, not their size: the prototypes and the bank are folded into the last layers.
* Branches have no order, so they are sorted by configuration. An injection is made for the number of branches of each
  configuration; the kernels are its inputs. It serves all blocks, and computes what is chosen alone.

Only the mended form (`A2SI`) with all its parts is deployed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from fuseloop.engines.deployment import Convolution
from fuseloop.networks.semantic_compensation import (
    A2SI,
    CODES,
    DILATIONS,
    GRID,
    STRIDE,
    SemanticCompensation,
    cosine_codes,
)
from fuseloop.networks.vfn import CHANNELS, LEAK

Counts = tuple[int, ...]
"""How many branches have each configuration."""


def extent(x: Tensor, first: int, last: int) -> Tensor:
    """The product of the sizes of some axes, as a float."""
    return torch.tensor(float(prod(x.shape[first : last + 1])), device=x.device)


def count_up(count: Tensor) -> Tensor:
    """0, 1, ... below a number, as floats."""
    return torch.arange(float(count), device=count.device)


# Sizes are not known before a graph runs: these two are operations of their own there.
fx.wrap("extent")
fx.wrap("count_up")


def _linear(layer: nn.Linear, leak: float = 1.0) -> Convolution:
    """A linear layer for B×C×1×1."""
    return Convolution(layer.weight.detach()[:, :, None, None], layer.bias.detach(), leak)


class _Norm(nn.Module):
    """Norm of B×C×H×W over all that an image has, and a leaky ReLU."""

    gain: Tensor
    offset: Tensor

    def __init__(self, norm: nn.GroupNorm | nn.LayerNorm, leak: float) -> None:
        super().__init__()
        self.register_buffer("gain", norm.weight.detach()[:, None, None].clone())
        self.register_buffer("offset", norm.bias.detach()[:, None, None].clone())
        self.eps = norm.eps
        self.leak = leak

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean((1, 2, 3), keepdim=True)
        variance = (centred * centred).mean((1, 2, 3), keepdim=True)
        return F.leaky_relu(centred / torch.sqrt(variance + self.eps) * self.gain + self.offset, self.leak)


class _Codes(nn.Module):
    """`cosine_codes` of a requirement B×C×4×4, as they are and moved by an element to either side; 96×16C."""

    cells: Tensor
    frequency: Tensor
    even: Tensor
    wave: Tensor

    def __init__(self) -> None:
        super().__init__()
        codes = cosine_codes(1, torch.empty(0))  # of one channel, whose own code is the first value of each
        frequency = torch.arange(CODES // 4)[:, None]
        self.register_buffer("cells", codes[:: CODES // 4].reshape(4, 1, 1, GRID * GRID))
        self.register_buffer("frequency", torch.pi * frequency)
        self.register_buffer("even", (frequency == 0).float())
        self.register_buffer("wave", (frequency > 0) * 2**0.5)

    def forward(self, requirement: Tensor) -> Tensor:
        channels = extent(requirement, 1, 1)
        cosines = torch.cos((count_up(channels) + 0.5) / channels * self.frequency)
        along = cosines * (self.even / channels + self.wave / torch.sqrt(channels))
        codes = F.pad((self.cells * along.unsqueeze(0).unsqueeze(3)).reshape(1, 1, CODES, -1), (1, 1, 0, 0))
        codes = codes.reshape(CODES, -1)
        # A tap that reads the element before meets the code of the element after.
        return torch.cat([codes[:, 2:], codes[:, 1:-1], codes[:, :-2]], dim=0)


class _Summary(nn.Module):
    """What `A2SI.summarise` makes of the moments of its hidden channels B×96×J, to B×K×1×1."""

    kernels: Tensor
    picked: Tensor

    def __init__(self, convolution: nn.Conv1d) -> None:
        super().__init__()
        self.outputs = convolution.out_channels
        code = torch.arange(self.outputs) % CODES
        self.register_buffer("picked", torch.cat([code + tap * CODES for tap in range(3)]))
        self.register_buffer("kernels", convolution.weight.detach().permute(2, 0, 1).flatten(0, 1).clone())

    def forward(self, moments: Tensor) -> Tensor:
        terms = (moments.index_select(1, self.picked) * self.kernels).sum((2,))
        return terms.reshape(-1, 3, self.outputs, 1, 1).sum((1,))


class _ImageSummary(nn.Module):
    """Convolutions with norms over cells, and the mean; to B×K×1×1."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(
                Convolution(layer.weight.detach(), layer.weight.detach().new_zeros(layer.out_channels))
                if isinstance(layer, nn.Conv2d)
                else _Norm(cast(nn.GroupNorm, layer), LEAK)
                for layer in layers
                if not isinstance(layer, nn.LeakyReLU)
            )
        )

    def forward(self, cells: Tensor) -> Tensor:
        summary: Tensor = self.layers(cells).mean((2, 3), keepdim=True)
        return summary


class Decision(nn.Module):
    """What an A2SI block decides in evaluation, `A2SI.adapt`.

    Args:
        block: The block.
        bank: Its bank, 4×V×e2.
    """

    earlier: Tensor
    taps: Tensor

    def __init__(self, block: A2SI, bank: Tensor) -> None:
        super().__init__()
        self.branches, self.vectors = block.branches, bank.shape[1]
        self.codes = _Codes()
        summaries = (block.p_task_f, block.bv_f.p_task_f)  # the structure is chosen by the first, vectors by the second
        self.register_buffer(
            "taps", torch.cat([cast(Tensor, layers[0].weight).detach()[:, 0] for layers in summaries]).T.clone()
        )
        self.task_structure, self.task_query = (_Summary(cast(nn.Conv1d, layers[2])) for layers in summaries)
        self.hidden = cast(nn.Conv1d, block.p_task_f[2]).in_channels
        self.image_structure, self.image_query = _ImageSummary(block.p_img_f), _ImageSummary(block.bv_f.p_img_f)
        prototypes = F.normalize(block.orthogonal_convolutional_prototypes.double(), dim=1)
        # Embeddings lie as e·M+m, and logits as 4m+t.
        towards = torch.einsum("te,mn->mten", prototypes, torch.eye(self.branches, dtype=torch.float64))
        self.structure = self._scores(block.a_task_img, towards.reshape(len(DILATIONS) * self.branches, -1))
        self.query = self._scores(block.bv_f.mlp, F.normalize(bank.detach().flatten(0, 1).double(), dim=1))
        self.register_buffer("earlier", torch.ones(self.branches, self.branches).tril(-1))

    @staticmethod
    def _scores(mlp: nn.Sequential, towards: Tensor) -> nn.Sequential:
        """An MLP whose outputs are multiplied with vectors."""
        first, norm, last = cast(nn.Linear, mlp[0]), cast(nn.LayerNorm, mlp[1]), cast(nn.Linear, mlp[3])
        folded = nn.Linear(last.in_features, len(towards))
        folded.weight = nn.Parameter((towards @ last.weight.detach().double()).float(), requires_grad=False)
        folded.bias = nn.Parameter((towards @ last.bias.detach().double()).float(), requires_grad=False)
        return nn.Sequential(_linear(first), _Norm(norm, 0.0), _linear(folded))

    def forward(self, cells: Tensor, requirement: Tensor) -> tuple[Tensor, Tensor]:
        """`A2SI.look` at features, B×8×h×w, and the requirement B×C×4×4 to configurations and vectors of the bank.

        Both are B×M, whole numbers as floats; vectors count from 0 to 4V-1.
        """
        sequence = F.pad(requirement.flatten(1).unsqueeze(1).unsqueeze(3), (0, 0, 1, 1)).flatten(1).unsqueeze(2)
        shifted = torch.cat([sequence[:, :-2], sequence[:, 1:-1], sequence[:, 2:]], dim=2)
        moments = self.codes(requirement) @ F.leaky_relu(shifted @ self.taps, LEAK)
        structure = torch.cat([self.task_structure(moments[:, :, : self.hidden]), self.image_structure(cells)], dim=1)
        logits = self.structure(structure).flatten(1).unflatten(1, (self.branches, len(DILATIONS)))
        configurations = logits.argmax(2).float()
        query = torch.cat([self.task_query(moments[:, :, self.hidden :]), self.image_query(cells)], dim=1)
        scores = self.query(query).flatten(1).unflatten(1, (len(DILATIONS), self.vectors))
        order = torch.topk(scores, self.branches, 2)[1].flatten(1)
        # Branches with the same configuration take the best vectors in turn.
        same = torch.eq(configurations.unsqueeze(2), configurations.unsqueeze(1)).float()
        rank = (same * self.earlier).sum((2,))
        vectors = order.gather(1, (configurations * self.branches + rank).long()).float()
        return configurations, configurations * self.vectors + vectors


class Constants(NamedTuple):
    """What an injection needs of a block, for any image; M branches.

    Attributes:
        table: The kernel of each vector of the bank, 4V×8×8×3×3; 1×1 kernels are in the middle.
        gain: Of the norm, 1×8M×1×1.
        offset: Of the norm, 1×8M×1×1.
        mixer: The zero-conv of the mean over the branches, 8×8M×1×1.
        bias: Of the zero-conv, 1×8×1×1.
    """

    table: Tensor
    gain: Tensor
    offset: Tensor
    mixer: Tensor
    bias: Tensor


@torch.no_grad()
def constants_of(block: A2SI, bank: Tensor) -> Constants:
    """The constants of a block with its bank, 4×V×e2."""
    pointwise = F.pad(block.mlp_1x1(bank[:1]).unflatten(2, (CHANNELS, CHANNELS, 1, 1)), (1, 1, 1, 1))
    spatial = block.mlp_3x3(bank[1:]).unflatten(2, (CHANNELS, CHANNELS, 3, 3))
    norm = cast(nn.GroupNorm, block.B_LR[0])
    gain, offset = (values.repeat(block.branches)[None, :, None, None] for values in (norm.weight, norm.bias))
    mixer = block.zc.weight.repeat(1, block.branches, 1, 1) / block.branches
    bias = cast(Tensor, block.zc.bias)[None, :, None, None].clone()
    return Constants(torch.cat([pointwise, spatial]).flatten(0, 1), gain, offset, mixer, bias)


def cells_of(features: Tensor) -> Tensor:
    """`A2SI.look` in NumPy and in any layout: B×8×H×W to the means of 16×16 pixels.

    The threads that PyTorch wakes for such small work spin on for a while, and would slow the engine.
    """
    return torch.from_numpy(_means(_means(features.numpy(), 2), 3))


def _means(x: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Means of 16 along an axis, and of what remains."""
    whole, rest = np.split(x, [x.shape[axis] // STRIDE * STRIDE], axis)
    means = whole.reshape(*x.shape[:axis], -1, STRIDE, *x.shape[axis + 1 :]).mean(axis + 1)
    return np.concatenate([means, rest.mean(axis, keepdims=True)], axis) if rest.shape[axis] else means


def _respond(features: Tensor, kernels: Tensor, configuration: int) -> Tensor:
    """A convolution with kernels O×8×3×3 of a configuration, zero border."""
    if configuration == 0:
        return F.conv2d(features, kernels[:, :, 1:2, 1:2], None, padding=0, dilation=1, groups=1)
    dilation = DILATIONS[configuration]
    return F.conv2d(features, kernels, None, padding=dilation, dilation=dilation, groups=1)


def _inject(
    features: Tensor,
    responses: Sequence[tuple[slice, Tensor]],
    others: Sequence[Tensor],
    strength: Tensor,
    eps: float,
    axes: tuple[int, ...] = (2, 3),
) -> Tensor:
    """Adds what norm, leaky ReLU, mean and zero-conv make of responses.

    Args:
        features: 1×8×H×W.
        responses: Channels of the 8M of the branches, from and to, and their responses.
        others: The constants after the table.
        strength: 1×1×1×1.
        eps: Of the norm.
        axes: Over which responses are reduced at first; those of each channel, or all.
    """
    gain, offset, mixer, bias = others
    width = sum(channels.stop - channels.start for channels, _ in responses)
    mean: Tensor | float = 0.0
    power: Tensor | float = 0.0
    for channels, response in responses:
        share = (channels.stop - channels.start) / width
        mean = response.mean(axes, keepdim=True).mean((1,), keepdim=True) * share + mean
        norms = torch.linalg.vector_norm(response, 2, axes, True)
        power = (norms * norms).sum((1,), keepdim=True) / (extent(features, 2, 3) * width) + power
    gain = gain / torch.sqrt(F.leaky_relu(cast(Tensor, power - mean * mean), 0.0) + eps)
    offset = offset - mean * gain
    mixer, total = mixer * strength, bias * strength  # here and not below, where engines would turn the features for it
    for channels, response in responses:
        seen = F.leaky_relu(response * gain[:, channels] + offset[:, channels], LEAK)
        total = F.conv2d(seen, mixer[:, channels], None, padding=0, dilation=1, groups=1) + total
    return features + total


class Injection(nn.Module):
    """`A2SI.inject` for one image whose branches are sorted by configuration.

    Args:
        counts: How many branches have each configuration.
        eps: Of the norm.
        together: Whether statistics are those of all channels at once, which one engine does fast and another badly.
    """

    def __init__(self, counts: Counts, eps: float, *, together: bool = False) -> None:
        super().__init__()
        self.counts = counts
        self.eps = eps
        self.axes = (1, 2, 3) if together else (2, 3)

    def forward(
        self,
        features: Tensor,
        kernels: Tensor,
        gain: Tensor,
        offset: Tensor,
        mixer: Tensor,
        bias: Tensor,
        strength: Tensor,
    ) -> Tensor:
        """Features 1×8×H×W, kernels 8M×8×3×3, constants as in `Constants`, strength 1×1×1×1; to 1×8×H×W."""
        responses, stop = [], 0
        for configuration, count in enumerate(self.counts):
            start, stop = stop, stop + count * CHANNELS
            if count:
                responses.append((slice(start, stop), _respond(features, kernels[start:stop], configuration)))
        return _inject(features, responses, (gain, offset, mixer, bias), strength, self.eps, self.axes)


class AnyInjection(nn.Module):
    """An injection whose graph serves any choice, for one image: it computes all configurations of all branches."""

    def __init__(self, constants: Constants, eps: float) -> None:
        super().__init__()
        for name, value in constants._asdict().items():
            self.register_buffer(name, value)
        self.width = constants.gain.shape[1]
        self.eps = eps

    def forward(self, features: Tensor, configurations: Tensor, vectors: Tensor, strength: Tensor) -> Tensor:
        """Features 1×8×H×W, what `Decision` gave, strength 1×1×1×1; to 1×8×H×W."""
        table, *others = (cast(Tensor, getattr(self, name)) for name in Constants._fields)
        kernels = table.index_select(0, vectors.reshape(-1).long())
        configurations = configurations.reshape(-1, 1, 1, 1, 1)
        parts = []
        for configuration in range(len(DILATIONS)):
            chosen = kernels * torch.eq(configurations, float(configuration)).float()
            parts.append(_respond(features, chosen.reshape(-1, CHANNELS, 3, 3), configuration))
        response = parts[0] + parts[1] + parts[2] + parts[3]
        return _inject(features, [(slice(0, self.width), response)], others, strength, self.eps)


class SecondPass(nn.Module):
    """The second pass of the closed loop: the blocks after the first, compensation before each, and the image."""

    def __init__(self, compensation: DeployedCompensation, steps: nn.ModuleDict) -> None:
        super().__init__()
        self.decisions = compensation.decisions
        self.injections = nn.ModuleDict(
            {key: AnyInjection(constants, compensation.eps) for key, constants in compensation.constants.items()}
        )
        self.blocks = nn.ModuleList(module for name, module in steps.items() if name.startswith("block"))
        self.last = steps["last"]

    def forward(self, infrared: Tensor, visible: Tensor, requirement: Tensor, strength: Tensor) -> Tensor:
        """Features 1×8×H×W of the first block, the requirement 1×C×4×4 and the strength 1 to the image 1×1×H×W."""
        strength = strength.reshape(1, 1, 1, 1)
        for level in range(len(self.blocks) + 1):
            if level > 0:
                infrared, visible = self.blocks[level - 1](infrared, visible)
            infrared = self._compensated(f"ir{level}", infrared, requirement, strength)
            visible = self._compensated(f"vi{level}", visible, requirement, strength)
        fused: Tensor = self.last(infrared, visible)
        return fused

    def _compensated(self, block: str, features: Tensor, requirement: Tensor, strength: Tensor) -> Tensor:
        cells = F.avg_pool2d(features, STRIDE, STRIDE, 0, ceil_mode=True, count_include_pad=False)
        configurations, vectors = self.decisions[block](cells, requirement)
        compensated: Tensor = self.injections[block](features, configurations, vectors, strength)
        return compensated


def is_deployable(compensation: SemanticCompensation) -> bool:
    """Whether this is the mended form with all its parts."""
    return not compensation.reference_compat and not compensation.without


class DeployedCompensation:
    """What engines need of a semantic compensation. Blocks have names such as "ir0", modality and level.

    Args:
        compensation: The network, in its mended form; its weights are taken as they are now.

    Attributes:
        decisions: What chooses, for each block.
        constants: What the injection of each block needs.
        eps: Of the norms.
    """

    def __init__(self, compensation: SemanticCompensation) -> None:
        bank = compensation.bank.detach()
        blocks: dict[str, A2SI] = {}
        for level in range(compensation.depth - 1):
            blocks[f"ir{level}"] = cast(A2SI, compensation.rsc_ir[f"a2si{level}"])
            blocks[f"vi{level}"] = cast(A2SI, compensation.rsc_vi[f"a2si{level}"])
        self.decisions = nn.ModuleDict({name: Decision(block, bank) for name, block in blocks.items()})
        self.constants = {name: constants_of(block, bank) for name, block in blocks.items()}
        self.eps = cast(nn.GroupNorm, blocks["ir0"].B_LR[0]).eps

    def chosen(self, block: str, configurations: Tensor, vectors: Tensor) -> tuple[Counts, tuple[Tensor, ...]]:
        """What was decided for one image, as the counts of an injection and its inputs between features and strength.

        Args:
            block: The block.
            configurations: M.
            vectors: M.
        """
        order = configurations.argsort(stable=True)
        counts = tuple(torch.bincount(configurations.long(), minlength=len(DILATIONS)).tolist())
        table, *others = self.constants[block]
        return counts, (table[vectors[order].long()].flatten(0, 1), *others)
