"""tools/parity.py: passes on the golden values, and says so when anything differs."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fuseloop.fusers.reference_tdfusion import published_tdfusion
from fuseloop.networks.restormer_fusion import RestormerFusion
from fuseloop.networks.vfn import VFN
from tools import parity

ORACLES = Path(__file__).parent / "oracles" / "networks"
SCRIPT = Path(parity.__file__)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of three quick golden files that a test may damage."""
    (tmp_path / "networks").mkdir()
    names = [f"{name}.safetensors" for name in ("fusion_losses", "vfn_L2", "vfn_L4")]
    entries = json.loads((ORACLES / "manifest.json").read_text())["files"]
    for name in names:
        shutil.copy(ORACLES / name, tmp_path / "networks" / name)
    manifest = {"files": {name: entries[name] for name in names}}
    (tmp_path / "networks" / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path / "networks"


def lines_and_code(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[dict[str, str], int]:
    """Runs the tool; returns the line of each fixture by its name, and the exit code."""
    code = parity.main([str(argument) for argument in arguments])
    return {line.split()[1]: line for line in capsys.readouterr().out.splitlines()}, code


def change_tensors(path: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def change_manifest(folder: Path, change: Callable[[dict], None]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


class TestGoldenValues:
    def test_the_committed_ones_pass(self, capsys):
        lines, code = lines_and_code(capsys, ORACLES, "--all")
        assert {name: line.split()[0] for name, line in lines.items()} == {
            "a2si_eval_s0": "PASS",
            "a2si_eval_s1": "PASS",
            "cagrad_ref": "PASS",
            "fusion_losses": "PASS",
            "rsc_closed_loop": "PASS",
            "tdfusion_F": "PASS",
            "tdfusion_G": "PASS",
            "tdfusion_loss": "PASS",
            "tdpi_block": "PASS",
            "toar_bfn": "PASS",
            "toar_full": "PASS",
            "vfn_L2": "PASS",
            "vfn_L4": "PASS",
        }
        assert code == 0
        assert all("error" in line and "tolerance" in line for line in lines.values())

    @pytest.mark.fixtures
    def test_the_whole_folder_has_no_failure(self, capsys):
        if "FUSELOOP_FIXTURES" not in os.environ:
            pytest.skip("needs the golden values of FUSELOOP_FIXTURES")
        lines, code = lines_and_code(capsys, Path(os.environ["FUSELOOP_FIXTURES"]) / "networks")
        assert not [line for line in lines.values() if line.startswith("FAIL")]
        assert code == 0
        for name in (
            "vfn_L2",
            "vfn_L4",
            "fusion_losses",
            "a2si_eval_s0",
            "a2si_eval_s1",
            "rsc_closed_loop",
            "cagrad_ref",
            "tdfusion_F",
            "tdfusion_G",
            "tdfusion_loss",
            "tdpi_block",
            "toar_bfn",
            "toar_full",
        ):
            assert lines[name].startswith("PASS")
        assert lines["refusion_checkpoint_F"].startswith("SKIP")

    def test_a_published_checkpoint_is_read_and_compared(self, capsys, tmp_path):
        """With one of our own in its place, since none may be handed on."""
        torch.manual_seed(0)
        network = RestormerFusion().eval()
        torch.save(published_tdfusion(network), tmp_path / "own.pth")
        infrared, luma = torch.rand(2, 1, 1, 16, 20)
        with torch.no_grad():
            fused = network(infrared, luma)
        stretched = (fused - fused.min()) / (fused.max() - fused.min())
        tensors = {"in.ir": infrared, "in.y": luma, "out.fused": fused, "out.fused_minmax": stretched}
        save_file(tensors, tmp_path / "published.safetensors")
        entry = {
            "method": "TDFusion / ReFusion fusion network F with the published infrared-visible checkpoint",
            "atol": {"out.fused": 1e-5, "out.fused_minmax": 1e-5},
            "checkpoint": {"name": "own.pth"},
        }
        (tmp_path / "manifest.json").write_text(json.dumps({"files": {"published.safetensors": entry}}))
        assert lines_and_code(capsys, tmp_path)[0]["published"].startswith("SKIP")
        for checkpoint, verdict, code in (("own.pth", "PASS", 0), ("other.pth", "FAIL", 1)):
            torch.save(published_tdfusion(RestormerFusion()), tmp_path / "other.pth")
            lines, found = lines_and_code(capsys, tmp_path, "--checkpoint", tmp_path / checkpoint)
            assert lines["published"].startswith(verdict), lines["published"]
            assert found == code

    def test_the_check_is_chosen_by_method_and_sizes_not_by_file_name(self, capsys, tmp_path):
        """A network of another depth, another name and one unnamed case."""
        torch.manual_seed(0)
        network = VFN(depth=3).eval()
        infrared, luma = torch.rand(2, 1, 1, 19, 23)
        with torch.no_grad():
            fused = network(infrared, luma)
        state = {f"state.{key}": value for key, value in network.state_dict().items()}
        save_file({"in.ir": infrared, "in.y": luma, "out.fused": fused, **state}, tmp_path / "other.safetensors")
        entry = {"method": "CLDyN VFN", "config": {"num_blocks": 3}, "atol": {"out.fused": 1e-5}}
        (tmp_path / "manifest.json").write_text(json.dumps({"files": {"other.safetensors": entry}}))
        lines, code = lines_and_code(capsys, tmp_path, "--all")
        assert lines["other"].startswith("PASS")
        assert code == 0


def scale(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors[name].mul_(1.001)


def set_one_value(value: float) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors["out.fused.a"].view(-1)[7].fill_(value)


def shift_one_value(tensors: dict[str, Tensor]) -> None:
    tensors["out.fused.a"].view(-1)[7] += 1.3e-5


def crop_an_output(tensors: dict[str, Tensor]) -> None:
    tensors["out.fused.a"] = tensors["out.fused.a"][..., :1].contiguous()


def drop_all_outputs(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if name.startswith("out.")]:
        del tensors[name]


DAMAGED_TENSORS = {
    "a changed weight": scale("state.frb2.f_conv.0.weight"),
    "a changed input": scale("in.ir.a"),
    "a changed output": scale("out.fused.b"),
    "a changed inner feature": scale("out.vi_feb.e0.a"),
    "one value just beyond its tolerance": shift_one_value,
    "a golden value that is not a number": set_one_value(torch.nan),
    "a golden value that is infinite": set_one_value(torch.inf),
    "weights that make the output infinite": lambda tensors: tensors["state.frb1.mlp_aa.2.bias"].fill_(torch.inf),
    "a missing weight": lambda tensors: tensors.pop("state.vi_feb.bfe.0.bias"),
    "a missing input": lambda tensors: tensors.pop("in.y.b"),
    "an output that the check does not make": lambda tensors: tensors.update({"out.frb3.a": torch.zeros(1)}),
    "an output of another shape, which is not broadcast": crop_an_output,
    "no output to compare with": drop_all_outputs,
}
DAMAGED_ENTRIES = {
    "not in the manifest": lambda files: files.pop("vfn_L2.safetensors"),
    "no tolerance": lambda files: files["vfn_L2.safetensors"]["atol"].pop("out.fused.a"),
    "no tolerances": lambda files: files["vfn_L2.safetensors"].pop("atol"),
    "no method": lambda files: files["vfn_L2.safetensors"].pop("method"),
    "another depth than the weights have": lambda files: files["vfn_L2.safetensors"]["config"].update(num_blocks=3),
    "not an object": lambda files: files.update({"vfn_L2.safetensors": 3}),
}
DAMAGED_FILES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "zero bytes": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not safetensors"),
    "gone": lambda path: path.unlink(),
}


class TestFailures:
    """Each makes one fixture FAIL with exit code 1; the others are still judged."""

    def assert_only_vfn_l2_fails(self, folder, capsys):
        lines, code = lines_and_code(capsys, folder)
        assert lines["vfn_L2"].startswith("FAIL"), lines["vfn_L2"]
        assert lines["fusion_losses"].startswith("PASS")
        assert lines["vfn_L4"].startswith("PASS")
        assert code == 1

    @pytest.mark.parametrize("damage", DAMAGED_TENSORS.values(), ids=DAMAGED_TENSORS)
    def test_tensors(self, folder, capsys, damage):
        change_tensors(folder / "vfn_L2.safetensors", damage)
        self.assert_only_vfn_l2_fails(folder, capsys)

    @pytest.mark.parametrize("damage", DAMAGED_ENTRIES.values(), ids=DAMAGED_ENTRIES)
    def test_manifest_entry(self, folder, capsys, damage):
        change_manifest(folder, lambda manifest: damage(manifest["files"]))
        self.assert_only_vfn_l2_fails(folder, capsys)

    @pytest.mark.parametrize("damage", DAMAGED_FILES.values(), ids=DAMAGED_FILES)
    def test_file(self, folder, capsys, damage):
        damage(folder / "vfn_L2.safetensors")
        self.assert_only_vfn_l2_fails(folder, capsys)


def test_integer_outputs_must_be_equal():
    expected = {"indices": torch.tensor([1, 2])}
    assert parity.compare({"indices": torch.tensor([1, 2])}, expected, {"out.indices": 0.0})[0]
    assert not parity.compare({"indices": torch.tensor([1, 3])}, expected, {"out.indices": 0.0})[0]


def test_an_output_that_is_not_finite_never_passes():
    with pytest.raises(parity.MismatchError, match="not finite"):
        parity.compare({"x": torch.tensor([torch.nan])}, {"x": torch.tensor([1.0])}, {"out.x": 1e9})


def test_a_method_that_is_not_there_yet_fails_only_with_all(folder, capsys):
    change_manifest(folder, lambda manifest: manifest["files"]["vfn_L2.safetensors"].update(method="Later"))
    lines, code = lines_and_code(capsys, folder)
    assert lines["vfn_L2"].startswith("TODO")
    assert "Later" in lines["vfn_L2"]
    assert code == 0
    assert lines_and_code(capsys, folder, "--all")[1] == 1


def test_a_fixture_without_its_checkpoint_is_skipped(folder, capsys):
    checkpoint = {"checkpoint": {"name": "published.pth"}}
    change_manifest(folder, lambda manifest: manifest["files"]["vfn_L2.safetensors"].update(checkpoint))
    lines, code = lines_and_code(capsys, folder, "--all")
    assert lines["vfn_L2"].startswith("SKIP")
    assert "published.pth" in lines["vfn_L2"]
    assert code == 0


@pytest.mark.parametrize(
    "manifest",
    [None, "", "{", "[]", '{"files": 3}', '{"files": {}}'],
    ids=["missing", "empty", "cut", "list", "number", "none"],
)
def test_a_folder_without_fixtures_is_a_usage_error(tmp_path, capsys, manifest):
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(SystemExit, match="2"):
        parity.main([str(tmp_path)])
    assert str(tmp_path) in capsys.readouterr().err


def test_a_checkpoint_that_does_not_exist_is_a_usage_error(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        parity.main([str(ORACLES), "--checkpoint", str(tmp_path / "none.pth")])
    assert "none.pth" in capsys.readouterr().err


def test_the_command_returns_its_exit_code(folder):
    (folder / "vfn_L2.safetensors").write_bytes(b"")
    finished = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert "FAIL vfn_L2" in finished.stdout
    assert "PASS vfn_L4" in finished.stdout
