"""Learning a fusion loss: one step of the fusion network ahead, and back to the loss (TDFusion, arXiv 2412.03240).

Three networks: the fusion network F makes an image, the generator G weights the fusion loss, the task network T looks
at the image. G is to be such that F, trained with the loss that G makes, gives images on which T does well. So a *meta
step* tries one step of F on support pairs, looks with T at what the moved F makes of query pairs, and asks how that
task loss changes with G. F, T and their optimisers are left as they were.

The derivative is exact and needs no second derivative of F. With v the gradient of the task loss at the moved F, and
the loss ℓ(image, weights) of the support pairs, it is

    dL_t/dG = -η d/dG ⟨∂ℓ/∂image, s⟩,   s = the derivative of the image along v,

where image and s do not depend on G: s is one forward-mode product through F ("jvp"), which keeps no graph, and then G
alone is differentiated. The plain way, to differentiate F twice ("double"), gives the same numbers with several times
the memory; it also takes several steps ahead. Finite differences of two images ("fd") do where F has an operation
without a forward-mode derivative.

Everything is done by functional calls, so networks need no special layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.optim import Optimizer

from fuseloop.errors import ConfigurationError, PairError
from fuseloop.networks.modes import looking
from fuseloop.pairs.colour import ycbcr_to_rgb
from fuseloop.tasks.protocol import Target, TaskNetwork
from fuseloop.training import TrainingError

Mode = Literal["jvp", "double", "fd"]
TaskMode = Literal["train", "frozen", "alternate"]

Parameters = dict[str, Tensor]
"""Tensors by the names that the parameters and buffers of a module have."""

Inner = Callable[[Parameters], Parameters]
"""The rule of an inner step, a pure function from gradients to directions: parameters move by -lr × direction."""

Call = Callable[[Parameters, tuple[Tensor, Tensor]], Tensor]
"""What a network makes with other parameters, of infrared and luma."""

Pull = Callable[[Tensor], Parameters]
"""Brings a gradient for what a network made back to its parameters."""

FusionLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""A function of (fused, infrared, luma, weights) that gives a scalar, see `LearnedFusionLoss`."""


class Samples(NamedTuple):
    """Pairs to learn from.

    Attributes:
        infrared: B×1×H×W in [0, 1].
        luma: Y of the visible images, the same shape.
        target: What the task network should say of them, whatever the task takes.
        frames: Infrared and luma as the task network is to see them, B×1×h×w each, where the fusion network learns on
            crops of them; None for the same.
    """

    infrared: Tensor
    luma: Tensor
    target: Any
    frames: tuple[Tensor, Tensor] | None = None

    @property
    def seen(self) -> tuple[Tensor, Tensor]:
        """Infrared and luma of what the task network looks at."""
        return (self.infrared, self.luma) if self.frames is None else self.frames


class Task(nn.Module):
    """A task of any module and any loss: calling it with (fused B×1×H×W, target) gives a scalar.

    Args:
        network: Looks at the fused luma.
        loss: A function of (its outputs, target) that gives a scalar.
    """

    def __init__(self, network: nn.Module, loss: Callable[[Any, Any], Tensor]) -> None:
        super().__init__()
        self.network = network
        self._loss = loss

    def forward(self, fused: Tensor, target: Any) -> Tensor:
        """The loss of a batch."""
        return self._loss(self.network(fused), target)


class Labels(NamedTuple):
    """What a `LabelledTask` needs beside the fused luma.

    Attributes:
        targets: The labels of each image.
        chroma: Cb and Cr, B×2×H×W, that the images get; None leaves them grey.
    """

    targets: Sequence[Target]
    chroma: Tensor | None = None


class LabelledTask(nn.Module):
    """The task of one of our task networks; its targets are `Labels`.

    Args:
        network: A detector, segmenter or saliency network.
    """

    def __init__(self, network: TaskNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, fused: Tensor, target: Labels) -> Tensor:
        """The mean loss of a batch."""
        if target.chroma is None:
            images = fused.expand(-1, 3, -1, -1)
        else:
            images = ycbcr_to_rgb(torch.cat([fused, target.chroma], dim=1)).clamp(0, 1)
        loss: Tensor = self.network.loss(self.network(images), target.targets, "mean")
        return loss


def sgd(gradients: Parameters) -> Parameters:
    """The inner step of plain gradient descent."""
    return gradients


class AdamStep:
    """The inner step that an Adam or AdamW would take now. It reads the state of the optimiser and changes nothing.

    The second moment counts as a constant: a fresh Adam has a step of almost the same size whatever the gradient, and
    its full derivative would say that nothing can be learned. Weight decay is left out, since no loss reaches it.

    Args:
        optimizer: Adam or AdamW of the module's parameters.
        module: The module that steps.

    Raises:
        ConfigurationError: The optimiser is another.
    """

    def __init__(self, optimizer: Optimizer, module: nn.Module) -> None:
        if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
            raise ConfigurationError(f"an AdamStep needs Adam or AdamW, got {type(optimizer).__name__}")
        self._optimizer = optimizer
        self._module = module

    def __call__(self, gradients: Parameters) -> Parameters:
        """Directions of all gradients."""
        parameters = dict(self._module.named_parameters())
        group_of = {parameter: group for group in self._optimizer.param_groups for parameter in group["params"]}
        directions = {}
        for name, gradient in gradients.items():
            parameter = parameters[name]
            if parameter not in group_of:
                raise ConfigurationError(f"the optimiser of the inner step does not have {name}")
            group, state = group_of[parameter], self._optimizer.state.get(parameter, {})
            first, second = group["betas"]
            step = float(state.get("step", 0)) + 1
            mean = first * state.get("exp_avg", 0.0) + (1 - first) * gradient
            square = second * state.get("exp_avg_sq", 0.0) + (1 - second) * gradient.detach().square()
            scale = (square / (1 - second**step)).sqrt() + group["eps"]
            directions[name] = mean / (1 - first**step) / scale
        return directions


class MaxNormSGD(Optimizer):
    """The update of G in the published code: all gradients together are divided by the largest component of them.

    Args:
        params: As optimisers take them.
        lr: How far the parameter with the largest gradient moves.
    """

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Moves the parameters, not at all where every gradient is zero."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = [(p, group["lr"]) for group in self.param_groups for p in group["params"] if p.grad is not None]
        largest = max((float(parameter.grad.abs().max()) for parameter, _ in moving), default=0.0)
        if largest > 0:
            for parameter, lr in moving:
                parameter.sub_(parameter.grad / largest, alpha=lr)
        return loss


@dataclass(frozen=True)
class MetaGradient:
    """What a look ahead found.

    Attributes:
        fusion_loss: Of the support pairs, before the inner step.
        task_loss: Of the query pairs, after it.
        gradients: Derivative of the task loss with respect to each parameter of the generator, by name; divided by the
            inner learning rate unless that was turned off.
        fused: What F made of the query pairs after the inner step, B×1×h×w.
    """

    fusion_loss: float
    task_loss: float
    gradients: Parameters
    fused: Tensor

    @property
    def norm(self) -> float:
        """Length of all gradients together."""
        return math.hypot(*(float(gradient.norm()) for gradient in self.gradients.values()))


class Lookahead:
    """The meta step and the fusion step of TDFusion, for any networks.

    >>> import torch
    >>> from torch import nn
    >>> from fuseloop.networks.vfn import VFN
    >>> from fuseloop.networks.loss_generator import LossGenerator
    >>> from fuseloop.training.learned_loss import LearnedFusionLoss
    >>> fusion, generator = VFN(), LossGenerator()
    >>> task = Task(nn.Conv2d(1, 2, 3, padding=1), nn.functional.cross_entropy)
    >>> learn = Lookahead(
    ...     fusion,
    ...     generator,
    ...     LearnedFusionLoss(),
    ...     task,
    ...     fusion_optimizer=torch.optim.Adam(fusion.parameters(), 1e-4),
    ...     generator_optimizer=torch.optim.Adam(generator.parameters(), 1e-4),
    ...     task_optimizer=torch.optim.Adam(task.parameters(), 1e-4),
    ... )
    >>> support, query = (Samples(*torch.rand(2, 1, 1, 16, 16), torch.zeros(1, 16, 16).long()) for _ in range(2))
    >>> sorted(learn.meta_step(support, query))
    ['fusion_loss', 'meta_grad_norm', 'task_loss']
    >>> sorted(learn.fusion_step(query))
    ['fusion_loss', 'task_loss']

    Networks are used in the mode in which they are, except where an option says otherwise. The meta step is computed in
    the precision of the parameters, also under autocast.

    Args:
        fusion: F, from (infrared, luma), B×1×H×W in [0, 1] each, to the fused luma. Parameters that need no gradient
            stay as they are.
        generator: G, from the same to weights B×2×h×w with sum 1, see `fuseloop.training.learned_loss.full_size`.
        loss: The fusion loss.
        task: T with its loss, from (fused, target) to a scalar, see `Task` and `LabelledTask`.
        mode: How the derivative is computed: "jvp", "double" or "fd".
        lr: η of the inner step.
        inner: The rule of the inner step, `sgd` or an `AdamStep`.
        steps: Inner steps, all on the same support pairs. More than one needs "double"; an `AdamStep` takes each of
            them from the same moments.
        per_step: Divide the meta-gradient by η, to which it is proportional. It is tiny otherwise, about 1e-9, below
            the eps of Adam.
        task_mode: "train": T learns with F. "frozen": it is left as it is, and in evaluation mode. "alternate": a
            fusion step moves F, the next one T, and so on.
        task_lookahead: Whether T too is tried one step ahead, on what F makes of the support pairs; not when frozen.
        task_lr: Of that step, by default `lr`.
        task_inner: The rule of that step.
        task_eval: Whether T is in evaluation mode where it looks at the query pairs; without, dropout and batch
            statistics make the derivative noisy.
        at_once: Pairs that go through F and G at a time in the modes "jvp" and "fd", by default all. It needs the
            memory of so many, for one more pass forward. Each pair must be seen by itself: no batch norm in training
            mode, no dropout.
        symmetrize: Use each pair a second time with its images exchanged, so that nothing depends on which is first.
        fusion_optimizer: Of F, for `fusion_step`.
        generator_optimizer: Of G, for `meta_step`: Adam, SGD or `MaxNormSGD`.
        task_optimizer: Of T, for `fusion_step` unless T is frozen.

    Attributes:
        turn: Number of the next fusion step, whose parity decides in task mode "alternate". A training that is
            continued sets it.

    Raises:
        ConfigurationError: An option is unknown or out of range, or they do not go together.
    """

    def __init__(
        self,
        fusion: nn.Module,
        generator: nn.Module,
        loss: FusionLoss,
        task: nn.Module,
        *,
        mode: Mode = "jvp",
        lr: float = 1e-4,
        inner: Inner = sgd,
        steps: int = 1,
        per_step: bool = True,
        task_mode: TaskMode = "train",
        task_lookahead: bool = True,
        task_lr: float | None = None,
        task_inner: Inner = sgd,
        task_eval: bool = False,
        at_once: int | None = None,
        symmetrize: bool = False,
        fusion_optimizer: Optimizer | None = None,
        generator_optimizer: Optimizer | None = None,
        task_optimizer: Optimizer | None = None,
    ) -> None:
        for name, value, kind in (("mode", mode, Mode), ("task_mode", task_mode, TaskMode)):
            if value not in get_args(kind):
                raise ConfigurationError(f"unknown {name} {value!r}; choose one of {', '.join(get_args(kind))}")
        if steps < 1 or (steps > 1 and mode != "double"):
            raise ConfigurationError(
                f"{steps} inner steps with mode {mode!r}: 'double' takes any number from 1, the other modes exactly 1"
            )
        if at_once is not None and (at_once < 1 or mode == "double"):
            raise ConfigurationError(
                f"at_once={at_once} with mode {mode!r}: give a number from 1; 'double' needs all pairs at once, so none"
            )
        if not 0 <= lr < math.inf or (lr == 0 and per_step):
            raise ConfigurationError(
                f"the inner step needs a finite lr above 0, got {lr}; 0 goes with per_step=False alone"
            )
        if not _trainable(fusion) or not _trainable(generator):
            raise ConfigurationError("fusion network and generator need parameters that require a gradient")
        self.fusion = fusion
        self.generator = generator
        self.loss = loss
        self.task = task
        self.mode = mode
        self.lr = lr
        self.inner = inner
        self.steps = steps
        self.per_step = per_step
        self.task_mode = task_mode
        self.task_lookahead = task_lookahead and task_mode != "frozen"
        self.task_lr = lr if task_lr is None else task_lr
        self.task_inner = task_inner
        self.task_eval = task_eval or task_mode == "frozen"
        self.at_once = at_once
        self.symmetrize = symmetrize
        self.fusion_optimizer = fusion_optimizer
        self.generator_optimizer = generator_optimizer
        self.task_optimizer = task_optimizer
        self.turn = 0

    def meta_step(self, support: Samples, query: Samples) -> dict[str, float]:
        """Moves G so that the loss that it makes teaches F better. F, T and their optimisers stay bit for bit.

        Args:
            support: Pairs of the inner step.
            query: Other pairs, with which the result is judged; see `fuseloop.training.support_query`.

        Returns:
            `fusion_loss`, `task_loss` and `meta_grad_norm`, see `MetaGradient`.

        Raises:
            ConfigurationError: There is no optimiser of G, or a loss does not depend on what it should.
            PairError: The images of a pair differ in shape.
            TrainingError: The meta-gradient is not finite. Nothing was moved.
        """
        optimizer = _needed(self.generator_optimizer, "meta_step", "generator_optimizer")
        found = self.meta_gradient(support, query)
        for name, parameter in self.generator.named_parameters():
            parameter.grad = found.gradients.get(name)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {"fusion_loss": found.fusion_loss, "task_loss": found.task_loss, "meta_grad_norm": found.norm}

    def fusion_step(self, samples: Samples) -> dict[str, float]:
        """Moves F by the fusion loss of the weights as they are now, then T by the task loss of the fused images.

        Args:
            samples: Pairs.

        Returns:
            `fusion_loss` and `task_loss`, before the step of each; in task mode "alternate" that of the network whose
            turn it is, and with a frozen T the first alone.

        Raises:
            ConfigurationError: There is no optimiser of F or T.
            PairError: The images of a pair differ in shape.
            TrainingError: A loss or gradient is not finite. That network was not moved.
        """
        results = {}
        alternate = self.task_mode == "alternate"
        if not (alternate and self.turn % 2):
            optimizer = _needed(self.fusion_optimizer, "fusion_step", "fusion_optimizer")
            sources = self._sources((samples.infrared, samples.luma))
            with torch.no_grad():
                weights = self.generator(*sources)
            loss = self.loss(self.fusion(*sources), *sources, weights)
            results["fusion_loss"] = _descend(loss, self.fusion, optimizer, "fusion loss")
        if self.task_mode == "train" or (alternate and self.turn % 2):
            optimizer = _needed(self.task_optimizer, "fusion_step", "task_optimizer")
            with torch.no_grad():
                fused = self._fuse({}, self._sources(samples.seen))
            loss = self._task_loss({}, fused, samples.target)
            results["task_loss"] = _descend(loss, self.task, optimizer, "task loss")
        self.turn += 1
        return results

    def meta_gradient(self, support: Samples, query: Samples) -> MetaGradient:
        """How the task loss on query pairs, after an inner step on support pairs, changes with G. Nothing is moved.

        Arguments and errors are those of `meta_step`.
        """
        if self.at_once is not None and (mixing := _mixes(self.fusion) or _mixes(self.generator)):
            raise ConfigurationError(
                f"at_once={self.at_once} needs networks that see each pair by itself, and a {mixing} is in training "
                "mode; leave at_once out, or put the network into evaluation mode"
            )
        with torch.autocast(support.infrared.device.type, enabled=False), torch.enable_grad():
            sources = self._sources((support.infrared, support.luma))
            task_state = self._task_ahead(support)
            if self.mode == "double":
                found = self._twice(sources, task_state, query)
            else:
                found = self._along(sources, task_state, query)
        if not all(bool(gradient.isfinite().all()) for gradient in found.gradients.values()):
            raise TrainingError(
                f"the meta-gradient is not finite (fusion loss {found.fusion_loss:.4g}, task loss "
                f"{found.task_loss:.4g}); look for broken images or labels, or lower the learning rates"
            )
        return found

    def _twice(self, sources: tuple[Tensor, Tensor], task_state: Parameters, query: Samples) -> MetaGradient:
        """The meta-gradient by differentiating the inner steps."""
        own, moving = _leaves(self.generator), _leaves(self.fusion)
        weights = self._weigh(own, sources)
        losses = []
        for _ in range(self.steps):
            loss = self.loss(self._fuse(moving, sources), *sources, weights)
            losses.append(float(loss.detach()))
            directions = self.inner(_gradients([loss], moving, create_graph=True))
            moving = {name: value - self.lr * directions[name] for name, value in moving.items()}
        fused = self._fuse(moving, self._sources(query.seen))
        task_loss = self._query_loss(task_state, fused, query.target)
        slope = _slope_of_weights(task_loss, weights)
        gradients = _gradients([weights], own, [slope])
        if self.per_step:
            gradients = {name: gradient / self.lr for name, gradient in gradients.items()}
        return MetaGradient(losses[0], float(task_loss.detach()), gradients, fused.detach())

    def _along(self, sources: tuple[Tensor, Tensor], task_state: Parameters, query: Samples) -> MetaGradient:
        """The meta-gradient by the derivative of the image along one direction. Each graph is freed before the next."""
        here = {name: parameter.detach() for name, parameter in _trainable(self.fusion).items()}
        with torch.no_grad():
            weights = self.generator(*sources)
        fused, pull = self._through(self._fuse, here, sources)
        loss = self.loss(fused, *sources, weights)
        slopes = {name: slope.requires_grad_() for name, slope in pull(torch.autograd.grad(loss, fused)[0]).items()}
        directions = self.inner(slopes)
        there = {name: (value - self.lr * directions[name]).detach() for name, value in here.items()}
        judged, pull = self._through(self._fuse, there, self._sources(query.seen))
        task_loss = self._query_loss(task_state, judged, query.target)
        reached = pull(torch.autograd.grad(task_loss, judged, materialize_grads=True)[0])
        # The inner rule may scale each gradient: back through it, the direction is the one that the gradients turn to.
        along = _gradients([directions[name] for name in slopes], slopes, [reached[name] for name in slopes])
        gradients = self._descent(sources, here, along)
        if not self.per_step:
            gradients = {name: gradient * self.lr for name, gradient in gradients.items()}
        return MetaGradient(float(loss.detach()), float(task_loss.detach()), gradients, judged.detach())

    def _descent(self, sources: tuple[Tensor, Tensor], here: Parameters, along: Parameters) -> Parameters:
        """The gradients of -⟨∂ℓ/∂image, s⟩ for the parameters of G, s being the derivative of the image."""
        if self.mode == "jvp":
            with torch.no_grad():
                made = jvp(lambda parameters: self._fuse(parameters, sources), (here,), (along,))
            fused, change = made[0].detach().requires_grad_(), made[1].detach()
        else:
            size, length = (torch.stack([x.norm() for x in tensors.values()]).norm() for tensors in (here, along))
            # Very small, because images bend at every leaky ReLU, and rounding only shows in single pixels.
            step = torch.finfo(size.dtype).eps ** 0.75 * size / length.clamp(min=1e-30)
            with torch.no_grad():
                ahead = {sign: {name: here[name] + sign * step * along[name] for name in here} for sign in (1, -1)}
                above, below = (self._fuse(ahead[sign], sources) for sign in (1, -1))
        own = {name: parameter.detach() for name, parameter in _trainable(self.generator).items()}
        weights, pull = self._through(self._weigh, own, sources)
        if self.mode == "jvp":
            loss = self.loss(fused, *sources, weights)
            surrogate = -(torch.autograd.grad(loss, fused, create_graph=True)[0] * change).sum()
        else:
            surrogate = (self.loss(below, *sources, weights) - self.loss(above, *sources, weights)) / (2 * step)
        return pull(_slope_of_weights(surrogate, weights))

    def _through(self, call: Call, parameters: Parameters, sources: tuple[Tensor, Tensor]) -> tuple[Tensor, Pull]:
        """What a network makes, as a leaf, and the function that brings a gradient for it back to the parameters."""
        leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        size = self.at_once or len(sources[0])
        if size >= len(sources[0]):
            made = call(leaves, sources)
            return made.detach().requires_grad_(), lambda slope: _gradients([made], leaves, [slope])
        parts = list(zip(*(torch.split(source, size) for source in sources), strict=True))
        with torch.no_grad():
            output = torch.cat([call(parameters, part) for part in parts])

        def pull(slope: Tensor) -> Parameters:
            total = {name: torch.zeros_like(value) for name, value in parameters.items()}
            for part, piece in zip(parts, torch.split(slope, size), strict=True):
                for name, gradient in _gradients([call(leaves, part)], leaves, [piece]).items():
                    total[name] += gradient
            return total

        return output.requires_grad_(), pull

    def _fuse(self, parameters: Parameters, sources: tuple[Tensor, Tensor]) -> Tensor:
        """What F makes with other parameters. Copies of its buffers may change, which forward-mode wants made here."""
        fused: Tensor = functional_call(self.fusion, _state(self.fusion) | parameters, sources)
        return fused

    def _weigh(self, parameters: Parameters, sources: tuple[Tensor, Tensor]) -> Tensor:
        """What G makes with other parameters."""
        weights: Tensor = functional_call(self.generator, _state(self.generator) | parameters, sources)
        return weights

    def _task_ahead(self, support: Samples) -> Parameters:
        """Parameters and buffers of T, after a step of its own on the support pairs where that is wanted."""
        state = _state(self.task)
        if not self.task_lookahead:
            return state
        with torch.no_grad():
            fused = self._fuse({}, self._sources(support.seen))
        moving = _leaves(self.task)
        if not moving:
            return state
        # The buffers in `state` are copies, which this call may change.
        loss = self._task_loss(state | moving, fused, support.target)
        directions = self.task_inner(_gradients([loss], moving))
        moved = {name: (moving[name] - self.task_lr * directions[name]).detach() for name in moving}
        return state | moved

    def _query_loss(self, task_state: Parameters, fused: Tensor, target: Any) -> Tensor:
        """The task loss that is to become small."""
        evaluating: AbstractContextManager[None] = looking([self.task]) if self.task_eval else nullcontext()
        with evaluating:
            loss = self._task_loss(task_state, fused, target)
        if not loss.requires_grad:
            raise ConfigurationError(
                "the task loss does not depend on the fused image, so it cannot say which fusion loss is good; is "
                "something detached, rounded or turned into classes on the way from the image to the loss?"
            )
        return loss

    def _task_loss(self, task_state: Parameters, fused: Tensor, target: Any) -> Tensor:
        parts = fused.chunk(2) if self.symmetrize else (fused,)
        losses = [functional_call(self.task, task_state, (part, target)) for part in parts]
        for loss in losses:
            if not isinstance(loss, Tensor) or loss.ndim != 0:
                kind = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
                raise ConfigurationError(f"a task gives one scalar for a batch, its mean loss, not {kind}")
        return torch.stack(losses).mean()

    def _sources(self, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Infrared and luma, with the exchanged ones behind them where that is wanted."""
        infrared, luma = pair
        if infrared.shape != luma.shape or luma.ndim != 4 or luma.shape[1] != 1:
            raise PairError(
                f"infrared is {tuple(infrared.shape)} and luma {tuple(luma.shape)}; give both as the same B×1×H×W"
            )
        return (torch.cat([infrared, luma]), torch.cat([luma, infrared])) if self.symmetrize else (infrared, luma)


def _trainable(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def _mixes(module: nn.Module) -> str:
    """The kind of a layer that lets a pair change what the others give, or is random; empty where there is none."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    return next((type(part).__name__ for part in module.modules() if part.training and isinstance(part, kinds)), "")


def _leaves(module: nn.Module) -> Parameters:
    """The parameters that learn, as leaves of a graph of their own over the same memory."""
    return {name: parameter.detach().requires_grad_() for name, parameter in _trainable(module).items()}


def _state(module: nn.Module) -> Parameters:
    """All parameters without a graph, and copies of all buffers, which a call may then change."""
    return {
        **{name: parameter.detach() for name, parameter in module.named_parameters()},
        **{name: buffer.clone() for name, buffer in module.named_buffers()},
    }


def _gradients(
    values: Sequence[Tensor],
    of: Mapping[str, Tensor],
    slopes: Sequence[Tensor] | None = None,
    *,
    create_graph: bool = False,
) -> Parameters:
    """Gradients by name, zero where the values do not depend on a tensor; `slopes` are those of the values."""
    if not any(value.requires_grad for value in values):
        return {name: torch.zeros_like(tensor) for name, tensor in of.items()}
    found = torch.autograd.grad(values, [*of.values()], slopes, create_graph=create_graph, materialize_grads=True)
    return dict(zip(of, found, strict=True))


def _slope_of_weights(value: Tensor, weights: Tensor) -> Tensor:
    """The gradient of a scalar for the weights of the fusion loss."""
    found = torch.autograd.grad(value, weights, allow_unused=True)[0] if value.requires_grad else None
    if found is None:
        raise ConfigurationError(
            "the fusion loss does not depend on the weights of the generator, so nothing can be learned"
        )
    slope: Tensor = found
    return slope


def _descend(loss: Tensor, module: nn.Module, optimizer: Optimizer, what: str) -> float:
    """One step of an optimiser, unless something is not finite."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    value = float(loss.detach())
    if not math.isfinite(value) or not all(bool(gradient.isfinite().all()) for gradient in _kept(module)):
        optimizer.zero_grad(set_to_none=True)
        raise TrainingError(f"the {what} is {value:.4g} or its gradient is not finite; the step was left out")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return value


def _kept(module: nn.Module) -> Iterator[Tensor]:
    return (parameter.grad for parameter in module.parameters() if parameter.grad is not None)


def _needed(optimizer: Optimizer | None, step: str, name: str) -> Optimizer:
    if optimizer is None:
        raise ConfigurationError(f"{step} moves parameters: give the Lookahead a {name}")
    return optimizer
