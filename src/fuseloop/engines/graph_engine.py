"""What engines share that run ONNX graphs."""

from __future__ import annotations

from typing import ClassVar

import onnx
import torch
from torch import Tensor

from fuseloop.engines.compensation import DeployedCompensation, cells_of, is_deployable
from fuseloop.engines.engine import Engine
from fuseloop.engines.export import compensation_graph, part_graph
from fuseloop.networks.semantic_compensation import SemanticCompensation


class GraphEngine(Engine):
    """Runs graphs, those of the compensation among them; other forms than the mended one run in PyTorch.

    Beside the parts of the fusion network there are "decision.BLOCK", which chooses kernels, and "injection.COUNTS",
    which adds what they see and is made for so many branches of each configuration.
    """

    together: ClassVar[bool] = False
    """Whether this engine adds up all channels of a response fast and precisely, see `Injection`."""

    _deployed: DeployedCompensation | None = None

    def take(self, compensation: SemanticCompensation) -> None:
        """See `Engine.take`."""
        super().take(compensation)
        self._deployed = DeployedCompensation(compensation) if is_deployable(compensation) else None

    def compensate(
        self, level: int, infrared: Tensor, visible: Tensor, *, requirement: Tensor, strength: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """See `Engine.compensate`."""
        if self._deployed is None:
            return super().compensate(level, infrared, visible, requirement=requirement, strength=strength)
        if strength == 0:
            return infrared, visible
        return (
            self._compensate(self._deployed, f"ir{level}", infrared, requirement, strength),
            self._compensate(self._deployed, f"vi{level}", visible, requirement, strength),
        )

    def _compensate(
        self, deployed: DeployedCompensation, block: str, features: Tensor, requirement: Tensor, strength: float
    ) -> Tensor:
        """One modality. Images choose apart, so they are compensated one after the other."""
        configurations, vectors = self._run(f"decision.{block}", cells_of(features), requirement)
        compensated: list[Tensor] = []
        for image in range(len(features)):
            counts, inputs = deployed.chosen(block, configurations[image], vectors[image])
            part = ".".join(map(str, ("injection", *counts)))
            compensated += self._run(part, features[image : image + 1], *inputs, torch.full((1, 1, 1, 1), strength))
        return torch.cat(compensated) if len(compensated) > 1 else compensated[0]

    def _model(self, part: str) -> onnx.ModelProto:
        """The graph of a part."""
        if part.startswith(("decision", "injection")):
            assert self._deployed is not None
            return compensation_graph(self._deployed, part, together=self.together)
        return part_graph(self._deployment, part)
