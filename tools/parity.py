"""Compares this library with golden values of the published implementations, one line a fixture.

    python tools/parity.py FOLDER [--all] [--checkpoint FILE]

FOLDER holds a `manifest.json` and safetensors files: `in.<name>` are the inputs, `out.<name>` the expected outputs and
`state.<key>` the weights. The manifest names the method of every file, which selects the check, and the tolerance of
every output. A line reads PASS, FAIL, TODO (the method is not there yet) or SKIP (it needs a checkpoint that was not
given), the name, the largest error and its tolerance. The exit code is 1 when something FAILs, with `--all` also when
something is TODO, and 2 when FOLDER holds no fixtures.

A new method is one function from a `Fixture` to its outputs by name, and one line in `CHECKS`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fuseloop.fusers.reference_tdfusion import read_tdfusion
from fuseloop.networks.loss_generator import LossGenerator
from fuseloop.networks.prompt_injection import BFN, TDPI, TOAR
from fuseloop.networks.restormer_fusion import RestormerFusion
from fuseloop.networks.semantic_compensation import Adaptation, PublishedA2SI, SemanticCompensation, SemanticInjection
from fuseloop.networks.vfn import VFN, gradient_magnitude
from fuseloop.pairs.colour import rgb_to_ycbcr, ycbcr_to_rgb
from fuseloop.training import gradient_rules, losses
from fuseloop.training.learned_loss import LearnedFusionLoss, learned_gradient_loss, weighted_intensity_loss
from fuseloop.training.lookahead import Lookahead, Samples, Task

Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Fixture:
    """One golden file: its tensors without their prefix, and the `config` that the manifest gives."""

    inputs: dict[str, Tensor]
    state: dict[str, Tensor]
    expected: Outputs
    config: dict[str, Any]
    checkpoint: Path | None

    @classmethod
    def read(cls, path: Path, entry: dict[str, Any], checkpoint: Path | None) -> Fixture:
        tensors = load_file(path)

        def under(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}

        # A large matrix is kept as two thin ones of int8 and a power of two, exact in float32.
        scales = under("state_s.")
        first, second = under("state_a."), under("state_b.")
        products = {key: (first[key].float() @ second[key].float()) * scales[key] for key in scales}
        return cls(under("in."), under("state.") | products, under("out."), entry.get("config", {}), checkpoint)

    def state_under(self, prefix: str) -> dict[str, Tensor]:
        """The state of one of several networks."""
        return {key.removeprefix(prefix): value for key, value in self.state.items() if key.startswith(prefix)}


def vfn(fixture: Fixture) -> Outputs:
    """Every stage of the network, for each case of inputs (`ir.a`, `y.a`; `ir.b`, `y.b`; ...)."""
    network = VFN(fixture.config["num_blocks"]).eval()
    network.load_state_dict(fixture.state)
    outputs = {}
    for case in [name.removeprefix("ir") for name in fixture.inputs if name.startswith("ir")]:
        encoded = []
        for source, encoder in (("ir", network.ir_feb), ("y", network.vi_feb)):
            x = fixture.inputs[source + case]
            for level in range(network.depth):
                x = encoder.block(level, x)
                outputs[f"{'ir' if source == 'ir' else 'vi'}_feb.e{level}{case}"] = x
            encoded.append(x)
        features = torch.cat(encoded, dim=1)
        gradient = gradient_magnitude(features)
        outputs["frb1" + case] = network.frb1(features, network.pool(gradient), gradient)
        outputs["fused" + case] = network(fixture.inputs["ir" + case], fixture.inputs["y" + case])
    return outputs


def fusion_losses(fixture: Fixture) -> Outputs:
    """The losses with the gradient that training follows, and the colour conversion."""
    x = fixture.inputs
    infrared, luma, fused = x["ir"], x["y"], x["fused"].clone().requires_grad_()
    weights = fixture.config["intensity_sep_w"]
    with torch.enable_grad():
        total = losses.visual_loss(fused, infrared, luma)
        (total_gradient,) = torch.autograd.grad(total, fused)
    ycbcr = rgb_to_ycbcr(x["rgb"])
    return {
        "intensity_max": losses.intensity_loss(fused, infrared, luma),
        "intensity_sep": losses.separate_intensity_loss(fused, infrared, luma),
        "intensity_sep_w": losses.separate_intensity_loss(fused, infrared, luma, weights["ir_w"], weights["vis_w"]),
        "gradient_joint": losses.gradient_loss(fused, infrared, luma),
        "gradient_pair": losses.gradient_pair_loss(fused, luma),
        "total": total,
        "total_grad_wrt_fused": total_gradient,
        "sobel_ir": losses.sobel_magnitude(infrared),
        "sobel_y": losses.sobel_magnitude(luma),
        "sobel_fused": losses.sobel_magnitude(fused),
        "ycbcr": ycbcr,
        "rgb_roundtrip": ycbcr_to_rgb(ycbcr),
        "rgb_from_ycbcr": ycbcr_to_rgb(x["ycbcr"]),
    }


def decisions(adaptation: Adaptation, suffix: str) -> Outputs:
    """What a block decided, under the names of the golden values."""
    return {
        f"logits.{suffix}": adaptation.logits,
        f"indices.{suffix}": adaptation.configurations,
        f"query.{suffix}": adaptation.query,
        f"basis.{suffix}": adaptation.basis,
    }


def a2si(fixture: Fixture) -> Outputs:
    """One block in its published form, for each kind of feature."""
    block = PublishedA2SI(fixture.config["filter_num"], fixture.config["embed_dim"]).eval()
    block.load_state_dict(fixture.state)
    outputs = {}
    for kind in [name.removeprefix("task_f.") for name in fixture.inputs if name.startswith("task_f.")]:
        requirement = block.describe(fixture.inputs[f"task_f.{kind}"])
        adaptation = block.adapt(fixture.inputs["img_f"], requirement, fixture.inputs["bank"])
        outputs |= decisions(adaptation, kind)
        outputs[f"img_h.{kind}"] = block.inject(fixture.inputs["img_f"], adaptation)
    return outputs


def closed_loop(fixture: Fixture) -> Outputs:
    """Both passes of the closed loop in its published form, with what happens between them."""
    x, config = fixture.inputs, fixture.config
    network = VFN(config["vfn_num_blocks"]).eval()
    compensation = SemanticCompensation(
        config["vfn_num_blocks"],
        branches=config["filter_num"],
        width=config["embed_dim"],
        vectors=config["vector_num"],
        reference_compat=True,
    ).eval()
    network.load_state_dict(fixture.state_under("vfn."))
    compensation.load_state_dict(
        {"bvb": x["bank"]} | {key: value for key, value in fixture.state.items() if key.startswith("rsc_")}
    )
    luma, chroma = rgb_to_ycbcr(x["vis"]).split((1, 2), dim=1)
    first = network.encode_first(x["ir"], luma)
    requirement = compensation.describe(x["task_f"])
    outputs = {"fused_pass1": network.decode(network.encode_rest(*first))}

    def compensate(level: int, infrared: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        sides = (("ir", compensation.rsc_ir, infrared), ("vi", compensation.rsc_vi, visible))
        for side, blocks, features in sides:
            block = blocks[f"a2si{level}"]
            assert isinstance(block, SemanticInjection)
            outputs.update(decisions(block.adapt(features, requirement, compensation.bank), side))
            outputs[f"{side}_f.{level}"] = features
        outputs["img_h.ir"], outputs["img_h.vi"] = compensation(level, infrared, visible, requirement)
        return outputs["img_h.ir"], outputs["img_h.vi"]

    features = network.encode_rest(*first, compensate)
    gradient = gradient_magnitude(features)
    outputs["frb1"] = network.frb1(features, network.pool(gradient), gradient)
    outputs["fused_pass2"] = network.decode(features)
    for name in ("fused_pass1", "fused_pass2"):
        outputs[f"{name}_rgb"] = ycbcr_to_rgb(torch.cat([outputs[name], chroma], dim=1))
    return outputs


def base_network(fixture: Fixture) -> Outputs:
    """Every stage of the base fusion network of T-OAR."""
    network = BFN(fixture.config["num_blocks"]).eval()
    network.load_state_dict(fixture.state)
    pair = fixture.inputs["ir"], fixture.inputs["y"]
    features = network.encode(*pair)
    weighted = network.gate(features)
    return {
        "ir_f": features[:, :8],
        "vi_f": features[:, 8:],
        "ff": weighted,
        "d0": network.fb.get_submodule("d0")(weighted),
        "fused": network(*pair),
    }


def prompt_block(fixture: Fixture) -> Outputs:
    """The text adapter and one T-DPI block, for a batch and for its second image alone."""
    config, features = fixture.config, fixture.inputs["img_f"]
    adapter = TOAR(sentence=config["text_dim"], text=config["adapter_dim"]).adapter
    adapter.load_state_dict(fixture.state_under("adapter."))
    block = TDPI(config["adapter_dim"]).eval()
    block.load_state_dict(fixture.state_under("dpi0."))
    text = adapter(fixture.inputs["text"])
    kernels = block.kernels(features, text)
    return {
        "text_a": text,
        "kernels": kernels.flatten(1),
        "dynamic_conv": block.respond(features, kernels),
        "img_h": block(features, text),
        "img_h_single": block(features[1:], text[1:]),
    }


def prompt_injection(fixture: Fixture) -> Outputs:
    """The base network without and with T-OAR, and the features after every T-DPI block."""
    x, config = fixture.inputs, fixture.config
    network = BFN(config["num_blocks"]).eval()
    network.load_state_dict(fixture.state_under("bfn."))
    toar = TOAR(config["tdpi_blocks"] + 1, sentence=config["text_dim"]).eval()
    toar.load_state_dict(fixture.state_under("toar."))
    luma, chroma = rgb_to_ycbcr(x["vis"]).split((1, 2), dim=1)
    text = toar.adapter(x["text"])
    outputs = {"text_a": text, "fused_base": network(x["ir"], luma)}

    def inject(level: int, infrared: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        changed = toar(level, infrared, visible, text)
        outputs[f"ir_h.{level}"], outputs[f"vi_h.{level}"] = changed
        return changed[0], changed[1]

    features = network.encode(x["ir"], luma, inject)
    outputs["ir_f"], outputs["vi_f"] = features.split(8, dim=1)
    outputs["fused"] = network(x["ir"], luma, inject)
    outputs["fused_rgb"] = ycbcr_to_rgb(torch.cat([outputs["fused"], chroma], dim=1))
    return outputs


def published_gradients(fixture: Fixture) -> Outputs:
    """The published combination of gradients, for each case."""
    outputs = {}
    for case in [name.removeprefix("G.") for name in fixture.inputs if name.startswith("G.")]:
        gradients, balance = fixture.inputs[f"G.{case}"], float(fixture.inputs[f"lam.{case}"])
        rule = partial(gradient_rules.published, balance=balance)
        outputs[f"alpha.{case}"] = rule(gradient_rules.gram(gradients))
        outputs[f"combined.{case}"] = gradient_rules.combine(gradients, rule)
    return outputs


def restormer_fusion(fixture: Fixture) -> Outputs:
    """The attention merge and the fused image."""
    network = RestormerFusion().eval()
    network.load_state_dict(fixture.state)
    pair = fixture.inputs["ir"], fixture.inputs["y"]
    return {"merge": network.merge(*pair), "fused": network(*pair)}


def published_restormer_fusion(fixture: Fixture) -> Outputs:
    """The fused image with a published checkpoint, and as the published inference stretches it."""
    assert fixture.checkpoint is not None
    network = read_tdfusion(fixture.checkpoint)
    assert isinstance(network, RestormerFusion), "the checkpoint is of another network"
    fused = network(fixture.inputs["ir"], fixture.inputs["y"])
    return {"fused": fused, "fused_minmax": (fused - fused.min()) / (fused.max() - fused.min())}


def loss_generator(fixture: Fixture) -> Outputs:
    """The joint features and the weights of both images."""
    network = LossGenerator().eval()
    network.load_state_dict(fixture.state)
    pair = fixture.inputs["ir"], fixture.inputs["y"]
    return {"enc_joint": network.encode(*pair), "weights": network(*pair)}


def learned_loss(fixture: Fixture) -> Outputs:
    """The fusion loss for both powers of the weights, and the gradient that reaches the generator through a step."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): x.double() for key, x in fixture.state.items() if key.startswith(prefix)}

    x = {name: value.double() if value.is_floating_point() else value for name, value in fixture.inputs.items()}
    fusion, generator, head = RestormerFusion().double(), LossGenerator().double(), nn.Conv2d(1, 5, 3, padding=1)
    for network, prefix in ((fusion, "F."), (generator, "G."), (head.double(), "T.conv.")):
        network.load_state_dict(part(prefix))
    support = Samples(x["inner_ir"], x["inner_y"], None)
    query = Samples(x["outer_ir"], x["outer_y"], x["outer_label"])
    pair = support[:2]
    weights, fused = generator(*pair), fusion(*pair)
    task = Task(head, nn.functional.cross_entropy)
    gradient = learned_gradient_loss(fused, *pair, padding="zero")
    outputs = {
        "weights_inner": weights,
        "fused_inner": fused,
        "loss_grad": gradient,
        "task_before": task(fusion(*query[:2]), query.target),
    }
    for name, power in (("w", 1), ("w2", 2)):
        loss = LearnedFusionLoss(weight_power=power, padding="zero")
        lookahead = Lookahead(
            fusion, generator, loss, task, lr=float(x["inner_lr"]), per_step=False, task_lookahead=False
        )
        found = lookahead.meta_gradient(support, query)
        outputs |= {
            f"loss_int_{name}": weighted_intensity_loss(fused, *pair, weights, power),
            f"loss_total_{name}": loss(fused, *pair, weights),
            f"task_after_{name}": torch.tensor(found.task_loss, dtype=torch.float64),
            f"fused_outer_after_{name}": found.fused,
            **{f"meta_grad_{name}.{key}": value for key, value in found.gradients.items()},
        }
    return outputs


# The method as the manifest words it, a regular expression because some name their sizes, and its check.
CHECKS: dict[str, Callable[[Fixture], Outputs]] = {
    r"CLDyN VFN": vfn,
    r"CLDyN A2SI": a2si,
    r"CLDyN VFN \(\d+ blocks\) with RSC .*": closed_loop,
    r"CLDyN gradient combination .*": published_gradients,
    r"T-OAR base fusion network": base_network,
    r"T-OAR T-DPI block with its text adapter": prompt_block,
    r"T-OAR: base fusion network .*": prompt_injection,
    r"TDFusion fusion network F": restormer_fusion,
    r"TDFusion / ReFusion fusion network F with the published .* checkpoint": published_restormer_fusion,
    r"TDFusion loss generation network G": loss_generator,
    r"TDFusion fusion loss and meta-gradient of G": learned_loss,
    r"CLDyN / T-OAR fusion losses and colour conversion.*": fusion_losses,
}


@dataclass(frozen=True)
class Verdict:
    """One line of the report."""

    status: str
    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.status} {self.name:<24} {self.detail}"


class MismatchError(Exception):
    """An output that cannot be compared; the message says why."""


def error_of(name: str, output: Tensor, expected: Tensor) -> float:
    """max |output - expected| of two finite tensors of the same shape."""
    if output.shape != expected.shape:
        raise MismatchError(f"{name} is {tuple(output.shape)}, expected {tuple(expected.shape)}")
    if not output.isfinite().all() or not expected.isfinite().all():
        raise MismatchError(f"{name} is not finite")
    if output.numel() == 0:
        return 0.0
    return (output.double() - expected.double()).abs().max().item()


def compare(outputs: Outputs, expected: Outputs, tolerances: dict[str, float]) -> tuple[bool, str]:
    """Whether all outputs are within their tolerance, and the one that uses most of it, in words."""
    if not expected:
        raise MismatchError("the file holds no expected outputs")
    errors = []
    for name, golden in expected.items():
        if name not in outputs:
            raise MismatchError(f"no output {name}")
        if f"out.{name}" not in tolerances:
            raise MismatchError(f"the manifest gives no tolerance for {name}")
        tolerance = tolerances[f"out.{name}"]
        error = error_of(name, outputs[name], golden)
        # Integers have tolerance 0: equal, or beyond it by any measure.
        errors.append((error / tolerance if tolerance else error and float("inf"), error, tolerance, name))
    share, error, tolerance, name = max(errors)
    return share <= 1, f"error {error:.2e}  tolerance {tolerance:.2e}  {share:.3f} of it at {name}"


def judge(path: Path, entry: dict[str, Any] | None, checkpoint: Path | None) -> Verdict:
    """Runs one fixture."""
    name = path.stem
    try:
        if entry is None:
            raise MismatchError("is not in manifest.json")
        fixture = Fixture.read(path, entry, checkpoint)
        if "checkpoint" in entry and checkpoint is None:
            return Verdict("SKIP", name, f"needs --checkpoint {entry['checkpoint']['name']}")
        method = entry["method"]
        check = next((check for pattern, check in CHECKS.items() if re.fullmatch(pattern, method)), None)
        if check is None:
            return Verdict("TODO", name, f"method not there yet: {method}")
        with torch.no_grad():
            passed, detail = compare(check(fixture), fixture.expected, entry["atol"])
    except MismatchError as error:
        return Verdict("FAIL", name, str(error))
    except Exception as error:  # whatever one fixture does, the others are still judged
        return Verdict("FAIL", name, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    return Verdict("PASS" if passed else "FAIL", name, detail)


def judge_folder(folder: Path, checkpoint: Path | None = None) -> Iterator[Verdict]:
    """Runs every fixture that the manifest names or the folder holds, in the order of their names.

    Raises:
        ValueError: The folder has no readable manifest, or no fixtures.
    """
    try:
        entries = dict(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} has no manifest.json with its files: {error!r}") from error
    files = sorted({*entries, *(path.name for path in folder.glob("*.safetensors"))})
    if not files:
        raise ValueError(f"{folder} holds no fixtures")
    for file in files:
        yield judge(folder / file, entries.get(file), checkpoint)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compares this library with golden values, one line a fixture.")
    parser.add_argument("folder", type=Path, help="manifest.json and safetensors files")
    parser.add_argument("--all", action="store_true", help="methods that are not there yet count as failures")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="published checkpoint for the fixture that needs one"
    )
    options = parser.parse_args(arguments)
    if options.checkpoint is not None and not options.checkpoint.is_file():
        parser.error(f"--checkpoint: no file {options.checkpoint}")

    statuses = set()
    try:
        for verdict in judge_folder(options.folder, options.checkpoint):
            print(verdict, flush=True)
            statuses.add(verdict.status)
    except ValueError as error:
        parser.error(str(error))
    unwanted = {"FAIL", "TODO"} if options.all else {"FAIL"}
    return int(bool(statuses & unwanted))


if __name__ == "__main__":
    sys.exit(main())
