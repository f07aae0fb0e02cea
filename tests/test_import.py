"""What `import fuseloop` costs and does, measured in processes of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

import fuseloop

FUSING = ("torch", "numpy", "cv2", "PIL", "huggingface_hub", "safetensors", "tifffile")
OTHERS = (
    "onnx",
    "onnxruntime",
    "openvino",
    "matplotlib",
    "av",
    "tensorboard",
    "pydantic",
    "lightning_fabric",
    "rich",
    "torchmetrics",
    "faster_coco_eval",
    "py_sod_metrics",
    "scipy",
    "transformers",
    "skimage",
    "sklearn",
)

REPORT = """
import json, os, sys, time
import torch

def state():
    return {
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "grad": torch.is_grad_enabled(), "inference": torch.is_inference_mode_enabled(),
        "dtype": str(torch.get_default_dtype()), "device": str(torch.get_default_device()),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic),
        "cudnn": torch.backends.cudnn.benchmark, "matmul": torch.get_float32_matmul_precision(),
        "random": torch.random.get_rng_state().tolist(), "folder": os.getcwd(),
        # OpenCV puts its own folder in front of this path when images are first read.
        "environment": {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"},
        "warnings": [str(f) for f in __import__("warnings").filters],
    }

before, modules, start = state(), set(sys.modules), time.process_time()
{statement}
seconds = time.process_time() - start
print(json.dumps({
    "seconds": seconds,
    "changed": [key for key, value in state().items() if value != before[key]],
    "imported": sorted({name.split(".")[0] for name in set(sys.modules) - modules}),
}))
"""


def run(program: str) -> Any:
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert not finished.stderr
    return json.loads(finished.stdout)


@pytest.fixture(scope="module", params=["import fuseloop", "from fuseloop import *"])
def report(request: pytest.FixtureRequest) -> Any:
    return run(REPORT.replace("{statement}", request.param))


def test_import_takes_less_than_two_seconds_beside_torch(report: Any) -> None:
    assert report["seconds"] < 2


def test_import_leaves_the_process_as_it_was(report: Any) -> None:
    assert report["changed"] == []


def test_import_takes_in_no_foreign_engine_no_plotting_and_no_training(report: Any) -> None:
    assert not {*report["imported"]} & {*OTHERS}


def test_package_by_itself_takes_in_nothing_heavy() -> None:
    loaded = run("import sys, json, fuseloop; print(json.dumps(sorted(sys.modules)))")
    assert not {*loaded} & {*FUSING, *OTHERS}


@pytest.mark.parametrize("name", fuseloop.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(fuseloop, name) is not None
    assert name in dir(fuseloop)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fuze'"):
        fuseloop.fuze  # noqa: B018


def test_version_is_that_of_the_installation() -> None:
    assert fuseloop.__version__.count(".") >= 2
