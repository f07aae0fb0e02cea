"""Turns a checkpoint of a published implementation into a weight file, whichever network it is of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from fuseloop.fusers.reference import _unpickle as unpickle
from fuseloop.fusers.reference import convert_checkpoint, convert_compensation
from fuseloop.fusers.reference_prompts import convert_base, convert_prompts, is_base, is_prompts
from fuseloop.fusers.reference_tdfusion import convert_tdfusion, is_tdfusion
from fuseloop.networks.loss_generator import LossGenerator
from fuseloop.networks.prompt_injection import BFN, TOAR
from fuseloop.networks.restormer_fusion import RestormerFusion
from fuseloop.networks.semantic_compensation import SemanticCompensation
from fuseloop.networks.vfn import VFN

Converted = VFN | SemanticCompensation | BFN | TOAR | RestormerFusion | LossGenerator


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str], *, overwrite: bool = False) -> Converted:
    """Converts a checkpoint of CLDyN, T-OAR or TDFusion.

    Those of CLDyN are of VFN or its semantic compensation, those of T-OAR of its base network or T-OAR, and those of
    TDFusion of its fusion network or its loss generator.

    The checkpoint says itself which network it is of. Only tensors and plain values are unpickled, so it cannot run
    code.

    Args:
        source: The checkpoint, as ``torch.save`` wrote it.
        target: The ``.safetensors`` file to write.
        overwrite: Whether an existing target may be replaced.

    Returns:
        The network on the CPU, in evaluation mode, with every value of the checkpoint in float32.

    Raises:
        WeightsError: The checkpoint cannot be read, holds more than plain values, or is of none of these networks; or
            the target exists or cannot be written.
    """
    checkpoint = unpickle(Path(source))
    if is_prompts(checkpoint):
        return convert_prompts(source, target, overwrite=overwrite)
    if is_base(checkpoint):
        return convert_base(source, target, overwrite=overwrite)
    if is_tdfusion(checkpoint):
        return convert_tdfusion(source, target, overwrite=overwrite)
    if isinstance(checkpoint, Mapping) and "bvb" in checkpoint:
        return convert_compensation(source, target, overwrite=overwrite)
    return convert_checkpoint(source, target, overwrite=overwrite)
