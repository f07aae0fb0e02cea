"""A tiny data set on disk and a tiny recipe, so that a whole training takes about a second."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from fuseloop.training.config import VisualConfig


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny images gain nothing from threads, and waiting for them takes long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """Five smooth pairs of two sizes in `train`, two in `val`."""
    root = tmp_path_factory.mktemp("tiny_data")
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2)):
        for side in ("ir", "vi"):
            (root / split / side).mkdir(parents=True)
            for index in range(count):
                size = (56, 64) if index % 2 else (64, 56)
                image = cv2.resize(rng.random((8, 7), dtype=np.float32), size, interpolation=cv2.INTER_CUBIC)
                cv2.imwrite(str(root / split / side / f"{index}.png"), (image * 255).clip(0, 255).astype(np.uint8))
    return root


@pytest.fixture
def tiny(tiny_data, tmp_path):
    """Makes configurations: seven steps on crops under batch statistics, then six on whole frames under frozen ones."""

    def make(**changes):
        settings = {
            "folder": tmp_path / "run",
            "root": tiny_data,
            "device": "cpu",  # where the same bits are promised
            "data": [{"spec": "{root}/train"}],
            "validation": ["{root}/val"],
            "loss": {"intensity": 0.2, "gradient": 1.0, "scd": 0.1},
            "ema": 0.9,
            "clip": 5.0,
            "validate_every": 5,
            "checkpoint_every": 2,
            "log_every": 2,
            "stages": [
                {"steps": 7, "crop": 48, "batch": 3, "schedule": "cosine", "warmup": 2},
                {"steps": 6, "crop": "frame", "batch": 3, "norm": "frozen", "calibrate": 5},
            ],
        }
        return VisualConfig.model_validate(settings | changes)

    return make
