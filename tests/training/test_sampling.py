from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fuseloop.training.config import Augmentation, Stage
from fuseloop.training.sampling import Sampler, fade, jitter, random_crop, turn

PLAIN = Augmentation(flip=False, rotate=False)


class Ramps:
    """Pairs whose luma says where a pixel came from; the infrared is its negative."""

    def __init__(self, *sizes):
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        height, width = self.sizes[index]
        luma = ((np.arange(height)[:, None] + 3 * np.arange(width)) % 256).astype(np.uint8)
        return 255 - luma, luma

    def describe(self):
        return "ramps"


def sampler(*sizes, seed=0):
    return Sampler([Ramps(*sizes)], [1.0], seed)


def test_a_batch_depends_on_seed_step_and_slot_alone():
    stage = Stage(steps=9, crop=48)
    first, again = (sampler((60, 80), (90, 70)).batch(stage, 5, range(4))[0] for _ in range(2))
    assert torch.equal(first.luma, again.luma)
    for other in (
        sampler((60, 80), (90, 70)).batch(stage, 6, range(4))[0],
        sampler((60, 80), (90, 70), seed=1).batch(stage, 5, range(4))[0],
        sampler((60, 80), (90, 70)).batch(stage, 5, range(4), purpose=1)[0],
    ):
        assert not torch.equal(first.luma, other.luma)


def test_processes_draw_the_global_batch_between_them():
    stage, draws = Stage(steps=9, crop=48), sampler((60, 80), (90, 70))
    (whole,), (even,), (odd,) = (draws.batch(stage, 3, slots) for slots in (range(5), range(0, 5, 2), range(1, 5, 2)))
    assert torch.equal(whole.infrared[0::2], even.infrared)
    assert torch.equal(whole.infrared[1::2], odd.infrared)


def test_both_modalities_are_cropped_and_turned_alike():
    (batch,) = sampler((60, 80), (48, 48)).batch(Stage(steps=9, crop=48), 0, range(16))
    torch.testing.assert_close(batch.infrared, 1 - batch.luma)


def test_whole_frames_are_grouped_by_size():
    stage = Stage(steps=9, crop="frame", augmentation=PLAIN)
    batches = sampler((60, 80), (50, 70)).batch(stage, 0, range(12))
    assert sorted(tuple(batch.luma.shape[2:]) for batch in batches) == [(50, 70), (60, 80)]
    assert sum(len(batch.luma) for batch in batches) == 12


def test_sources_are_drawn_by_weight():
    draws = Sampler([Ramps((48, 48)), Ramps((50, 50))], [3.0, 1.0], seed=0)
    batches = draws.batch(Stage(steps=9, crop="frame"), 0, range(400))
    share = sum(len(batch.luma) for batch in batches if batch.luma.shape[2] == 48) / 400
    assert share == pytest.approx(0.75, abs=0.07)


@given(height=st.integers(8, 100), width=st.integers(8, 100), side=st.integers(8, 64), seed=st.integers(0, 99))
def test_crops_have_their_side_whatever_the_size(height, width, side, seed):
    pair = Ramps((height, width))[0]
    infrared, luma = random_crop(pair, side, np.random.default_rng(seed))
    assert luma.shape == (side, side)
    assert np.array_equal(infrared, 255 - luma)
    assert set(luma.flat) <= set(pair[1].flat), "reflection makes no new values"


def test_all_eight_views_of_a_square_occur():
    rng, square = np.random.default_rng(0), np.arange(9, dtype=np.uint8).reshape(3, 3)
    views = {turn([square], Augmentation(), rng)[0].tobytes() for _ in range(200)}
    assert len(views) == 8


def test_jitter_stays_in_range_and_none_changes_nothing():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rng = np.random.default_rng(0)
    assert np.array_equal(jitter(image, 0.0, rng), image.astype(np.float32) / np.float32(255))
    for _ in range(20):
        changed = jitter(image, 0.5, rng)
        assert changed.dtype == np.float32
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert (np.diff(changed.ravel()) >= 0).all(), "the order of grey levels is kept"


def test_some_images_fade_about_their_mean():
    image = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    rng = np.random.default_rng(0)
    assert np.array_equal(fade(image, 0.0, rng), image)
    contrasts = np.array([np.ptp(fade(image, 0.5, rng)) for _ in range(200)])
    assert 0.4 < np.mean(contrasts < 1) < 0.6
    assert 0.05 <= contrasts.min() < 0.15
    faded = fade(image, 1.0, rng)
    assert faded.dtype == np.float32
    assert faded.mean() == pytest.approx(image.mean(), abs=1e-6)


def test_what_does_not_fade_is_drawn_as_ever():
    stage = Stage(steps=9, crop=48, augmentation=Augmentation(jitter=0.1))
    never = stage.model_copy(update={"augmentation": Augmentation(jitter=0.1, fade=1e-9)})
    for step in range(3):
        first, second = (sampler((60, 80)).batch(one, step, range(3))[0] for one in (stage, never))
        assert torch.equal(first.infrared, second.infrared)
