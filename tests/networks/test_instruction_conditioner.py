"""The conditioner changes VFN for an instruction, for no instruction not at all, and has none of T-DPI's defects."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseloop.errors import ConfigurationError
from fuseloop.networks.cost import multiply_accumulates, parameter_count
from fuseloop.networks.instruction_conditioner import (
    PLACES,
    Change,
    Conditioning,
    InstructedVFN,
    InstructionConditioner,
    finish,
    inject,
    together,
)
from fuseloop.networks.semantic_compensation import SemanticCompensation
from fuseloop.networks.vfn import VFN, gradient_magnitude
from tests.networks.tester import NetworkTester

SUBSETS = {place: (place,) for place in PLACES} | {"all": PLACES}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def instructions(count: int, length: int = 64, seed: int = 0) -> Tensor:
    """Embeddings of length 1."""
    return F.normalize(random(count, length, seed=seed), dim=1)


def trained(conditioner: InstructionConditioner, scale: float = 0.2) -> InstructionConditioner:
    """The conditioner with nothing zero any more."""
    for place in conditioner.changes.values():
        for parameter in (*place.film.parameters(), *place.zc.parameters(), place.offsets):
            nn.init.normal_(parameter, std=scale)
    return conditioner.eval()


def network_of(depth: int = 2) -> VFN:
    """A network whose batch norms have seen something."""
    torch.manual_seed(0)
    network = VFN(depth).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def instructed(depth: int = 2, **options: object) -> InstructedVFN:
    """A frozen network with a trained conditioner."""
    network = network_of(depth)
    return InstructedVFN(network, trained(InstructionConditioner(depth, **options))).eval()  # type: ignore[arg-type]


def pair_of(count: int = 2, height: int = 33, width: int = 47) -> Tensor:
    return torch.rand(2, count, 1, height, width, generator=torch.Generator().manual_seed(1))


class Sentence(nn.Module):
    """An instructed network whose instruction is a vector of coarse means of both images."""

    def __init__(self, depth: int = 2, **options: object) -> None:
        super().__init__()
        self.whole = InstructedVFN(VFN(depth), InstructionConditioner(depth, embedding=32, **options))  # type: ignore[arg-type]
        trained(self.whole.conditioner)

    def forward(self, infrared: Tensor, luma: Tensor) -> Tensor:
        embedding = F.adaptive_avg_pool2d(torch.cat([infrared, luma], dim=1), 4).flatten(1)
        fused: Tensor = self.whole(infrared, luma, embedding / 4)
        return fused


class TestSentence(NetworkTester):
    make = Sentence
    variants = ({}, {"depth": 1}, {"depth": 3}, {"places": ("gate",)}, {"kernels": 4, "hidden": 16})
    exportable = False  # with any batch; a test below exports it for one image of any size


class TestSize:
    @pytest.mark.parametrize(
        ("options", "count"),
        [
            ({}, 48_024),
            ({"places": ("encoder",)}, 23_232),
            ({"places": ("gate",)}, 22_840),
            ({"places": ("decoder",)}, 23_232),
            ({"kernels": 4}, 32_708),
            ({"depth": 4}, 85_800),
        ],
        ids=str,
    )
    def test_parameters(self, options, count):
        assert parameter_count(InstructionConditioner(**options)) == count

    def test_it_stays_below_100_000_parameters_and_1_3_passes_of_the_network(self):
        whole, (infrared, luma) = instructed(), pair_of(1, 240, 320)
        assert parameter_count(whole.conditioner) <= 100_000
        cost = multiply_accumulates(whole, infrared, luma, instructions(1))
        assert cost < 1.13 * multiply_accumulates(whole.network, infrared, luma)

    def test_kernels_are_mixed_and_not_what_they_make(self):
        """Twice the basis costs a frame nothing that grows with it."""
        infrared, luma = pair_of(1, 240, 320)
        costs = [
            multiply_accumulates(instructed(kernels=kernels), infrared, luma, instructions(1)) for kernels in (4, 8)
        ]
        assert costs[1] - costs[0] < 240 * 320


class TestNeutral:
    """Before training, for the null instruction and at strength 0 the image is that of VFN, bit for bit."""

    @pytest.mark.parametrize("depth", [1, 2, 3])
    @torch.no_grad()
    def test_at_first(self, depth):
        network, pair = network_of(depth), pair_of()
        whole = InstructedVFN(network, InstructionConditioner(depth))
        assert torch.equal(whole(*pair, instructions(2)), network(*pair))

    @pytest.mark.parametrize("places", SUBSETS.values(), ids=SUBSETS)
    @torch.no_grad()
    def test_at_strength_zero_and_for_the_null_instruction(self, places):
        whole, pair = instructed(places=places), pair_of()
        neutral, embedding = whole.network(*pair), instructions(2)
        assert torch.equal(whole(*pair, embedding, 0.0), neutral)
        assert torch.equal(whole(*pair, embedding, torch.zeros(2)), neutral)
        assert torch.equal(whole(*pair, torch.zeros(2, 64)), neutral)
        assert (whole(*pair, embedding) - neutral).abs().max() > 1e-3

    @torch.no_grad()
    def test_beside_instructed_images_of_the_same_batch(self):
        whole, pair = instructed(), pair_of(3)
        embedding = instructions(3)
        embedding[1] = 0
        fused, neutral = whole(*pair, embedding), whole.network(*pair)
        assert torch.equal(fused[1], neutral[1])
        assert all((fused[index] - neutral[index]).abs().max() > 1e-3 for index in (0, 2))

    @torch.no_grad()
    def test_a_fading_instruction_and_a_smaller_strength_change_less(self):
        features, cells = random(1, 16, 12, 15), random(1, 16, 2, 2)
        conditioner, embedding = instructed().conditioner, instructions(1)

        def change(embedding: Tensor, strength: float | Tensor) -> Tensor:
            return conditioner.adapt(cells, embedding, strength).gate(features) - features

        whole = change(embedding, 1.0)
        torch.testing.assert_close(change(embedding, 0.25), 0.25 * whole, rtol=0, atol=1e-5)
        torch.testing.assert_close(change(embedding, torch.tensor([0.25])), 0.25 * whole, rtol=0, atol=1e-5)
        sizes = [change(length * embedding, 1.0).abs().mean().item() for length in (0.0, 0.1, 0.5, 1.0)]
        assert sizes == sorted(sizes)
        assert sizes[1] < 0.1 * sizes[3]
        assert 1 - torch.exp(torch.tensor(-4.0)) > 0.98, "an instruction of length 1 is a whole one"

    @torch.no_grad()
    def test_strength_may_differ_between_the_images_of_a_batch(self):
        whole, pair, embedding = instructed(), pair_of(2), instructions(2)
        fused = whole(*pair, embedding, torch.tensor([1.0, 0.5]))
        for index, strength in enumerate((1.0, 0.5)):
            alone = whole(*pair[:, index : index + 1], embedding[index : index + 1], strength)
            torch.testing.assert_close(fused[index : index + 1], alone, rtol=0, atol=1e-5)


class TestBatch:
    @torch.no_grad()
    def test_every_image_has_an_instruction_of_its_own_as_if_it_were_alone(self):
        whole, pair, embedding = instructed(), pair_of(4), instructions(4)
        together_ = whole(*pair, embedding)
        for index in range(4):
            alone = whole(*pair[:, index : index + 1], embedding[index : index + 1])
            torch.testing.assert_close(together_[index : index + 1], alone, rtol=0, atol=1e-5)
        other = whole(*pair, embedding.roll(1, dims=0))
        assert ((other - together_).abs().amax(dim=(1, 2, 3)) > 1e-3).all()

    @torch.no_grad()
    def test_evaluation_does_not_depend_on_what_was_seen_in_training_mode(self):
        """The batch norms of T-DPI follow the task that was trained last."""
        whole, pair = instructed(), pair_of()
        before = whole(*pair, instructions(2))
        whole.conditioner.train()
        for seed in range(20):
            whole(*(3 * pair_of()), instructions(2, seed=seed % 2))
        assert torch.equal(whole.eval()(*pair, instructions(2)), before)
        assert not list(whole.conditioner.buffers())

    @pytest.mark.parametrize("shape", [(1, 64), (2, 32), (64,), (2, 64, 1)])
    def test_an_embedding_of_another_shape_is_refused(self, shape):
        with pytest.raises(ConfigurationError, match="64 numbers for each of 2 images, got shape"):
            instructed()(*pair_of(2), torch.zeros(shape))


class TestInjection:
    @pytest.mark.parametrize(("channels", "groups"), [(8, 1), (16, 2)])
    @pytest.mark.parametrize(("height", "width"), [(12, 15), (1, 9), (2, 1)])
    def test_it_is_what_is_described(self, channels, groups, height, width):
        features = random(2, channels, height, width)
        change = Change(
            random(2, channels, channels // groups, 3, 3, seed=1),
            random(2, channels, seed=2),
            random(2, channels, channels, 1, 1, seed=3),
            random(2, channels, seed=4),
            random(2, channels, 1, 1, seed=5),
        )
        changed = inject(features, change)
        for image in range(2):
            response = F.conv2d(
                features[image : image + 1], change.kernel[image], change.offset[image], padding=1, groups=groups
            )
            active = torch.where(response > 0, response, 0.2 * response)[0]
            mixed = torch.einsum("oi,ihw->ohw", change.mixing[image, :, :, 0, 0], active)
            expected = features[image] * change.gain[image] + mixed + change.shift[image][:, None, None]
            torch.testing.assert_close(changed[image], expected, rtol=1e-5, atol=1e-4)

    def test_a_mixed_kernel_makes_the_mixture_of_what_the_basis_makes(self):
        conditioner = instructed().conditioner
        place = conditioner.changes["ir0"]
        hidden, features = random(1, 64), random(1, 8, 9, 9)
        change = place(hidden, torch.ones(1, 1))
        coefficients = place.coefficients(hidden)[0]
        apart = [
            F.conv2d(features, kernel, offset, padding=1)
            for kernel, offset in zip(place.basis, place.offsets, strict=True)
        ]
        expected = sum(weight * response for weight, response in zip(coefficients, apart, strict=True))
        ours = F.conv2d(features, change.kernel[0], change.offset[0], padding=1)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)

    @torch.no_grad()
    def test_text_and_image_interact(self):
        """In T-DPI they only add: the difference between two texts is the same for every image."""
        conditioner = instructed().conditioner
        embedding = instructions(2)

        def difference(cells: Tensor) -> Tensor:
            kernels = conditioner.adapt(cells.expand(2, -1, -1, -1), embedding).changes["gate"].kernel
            return kernels[0] - kernels[1]

        first, second = (difference(random(1, 16, 3, 4, seed=seed)) for seed in (0, 1))
        assert (first - second).norm() > 0.05 * first.norm()

    @pytest.mark.parametrize(("place", "calls"), [("encoder", {"ir0", "vi0"}), ("decoder", {"decoder0", "decoder1"})])
    def test_places_are_those_asked_for(self, place, calls):
        conditioning = instructed(places=(place,)).conditioner.adapt(random(1, 16, 2, 2), instructions(1))
        assert set(conditioning.changes) == calls
        features = random(1, 16, 8, 8)
        assert conditioning.gate(features) is features


class TestLearning:
    def test_on_the_first_step_what_starts_at_zero_learns_and_nothing_else(self):
        whole = InstructedVFN(network_of(), InstructionConditioner())
        whole(*pair_of(), instructions(2)).square().sum().backward()
        moved = {n for n, p in whole.conditioner.named_parameters() if p.grad is not None and p.grad.any()}
        zero = {n for n, _ in whole.conditioner.named_parameters() if "film" in n or "zc" in n}
        assert moved == zero

    def test_the_null_instruction_teaches_nothing(self):
        """Its image does not depend on the parameters, so that training them cannot harm it."""
        whole = instructed()
        whole(*pair_of(), torch.zeros(2, 64)).square().sum().backward()
        assert not any(p.grad is not None and p.grad.any() for p in whole.conditioner.parameters())

    def test_an_instruction_can_be_learned_against_another(self):
        """One asks for a brighter image, the other for a darker one; after some steps each gets its own."""
        whole, pair, embedding = InstructedVFN(network_of(), InstructionConditioner()), pair_of(), instructions(2)
        whole.network.requires_grad_(False)
        optimiser = torch.optim.Adam(whole.conditioner.parameters(), 3e-3)
        wanted = torch.tensor([1.0, -1.0])
        neutral = whole.network(*pair).mean(dim=(1, 2, 3))
        for _ in range(30):
            optimiser.zero_grad()
            ((whole(*pair, embedding).mean(dim=(1, 2, 3)) - neutral) * -wanted).sum().backward()
            optimiser.step()
        shift = whole(*pair, embedding).mean(dim=(1, 2, 3)) - neutral
        swapped = whole(*pair, embedding.flip(0)).mean(dim=(1, 2, 3)) - neutral
        assert (shift * wanted > 0.02).all()
        assert (swapped * wanted < -0.02).all()


class TestTogether:
    """A sentence and the feature of a task network steer one image."""

    @pytest.fixture
    def loop(self) -> partial:
        torch.manual_seed(2)
        compensation = SemanticCompensation(width=64, vectors=8).eval()
        for side in (compensation.rsc_ir, compensation.rsc_vi):
            nn.init.normal_(side["a2si0"].zc.weight, std=0.3)
        return partial(compensation, requirement=compensation.describe(random(2, 32, 3, 4)))

    @torch.no_grad()
    def test_their_changes_are_added(self, loop):
        whole, features = instructed(), random(2, 2, 8, 20, 24)
        sentence = whole.conditioner(*features, instructions(2)).compensate
        both = torch.stack(together(loop, sentence)(0, *features))
        one, other = torch.stack(loop(0, *features)), torch.stack(sentence(0, *features))
        torch.testing.assert_close(both - features, (one - features) + (other - features), rtol=0, atol=1e-5)
        turned = torch.stack(together(sentence, loop)(0, *features))
        torch.testing.assert_close(both, turned, rtol=0, atol=1e-5)
        assert (one - features).abs().max() > 0.05
        assert (other - features).abs().max() > 0.05

    @torch.no_grad()
    def test_where_one_is_off_the_other_acts_alone_bit_for_bit(self, loop):
        whole, pair = instructed(), pair_of()
        first = whole.network.encode_first(*pair)
        sentence = whole.conditioner(*first, instructions(2))
        closed = whole.network.decode(whole.network.encode_rest(*first, loop))
        null = whole.conditioner(*first, torch.zeros(2, 64))
        assert torch.equal(finish(whole.network, *first, null, loop), closed)
        assert torch.equal(finish(whole.network, *first, Conditioning({}), loop), closed)
        off = partial(loop, strength=0)
        assert torch.equal(finish(whole.network, *first, sentence, off), whole(*pair, instructions(2)))
        assert torch.equal(finish(whole.network, *first, null, off), whole.network(*pair))
        assert torch.equal(together()(0, *first)[0], first[0])

    @torch.no_grad()
    def test_both_change_the_image(self, loop):
        whole, pair = instructed(), pair_of()
        first = whole.network.encode_first(*pair)
        sentence = whole.conditioner(*first, instructions(2))
        both = finish(whole.network, *first, sentence, loop)
        for one in (finish(whole.network, *first, sentence), finish(whole.network, *first, Conditioning({}), loop)):
            assert (both - one).abs().max() > 1e-3


class TestTiles:
    @torch.no_grad()
    def test_a_region_with_what_was_seen_of_the_frame_equals_the_frame_beyond_its_halo(self):
        whole, pair = instructed().double(), pair_of(1, 90, 100).double()
        network, conditioner = whole.network, whole.conditioner
        embedding, frame = instructions(1).double(), whole(*pair, instructions(1).double())

        def features_of(part: Tensor, conditioning: Conditioning) -> Tensor:
            return conditioning.gate(network.encode_rest(*network.encode_first(*part), conditioning.compensate))

        seen = conditioner(*network.encode_first(*pair), embedding)
        pooled = network.pool(gradient_magnitude(features_of(pair, seen)))
        top, left, bottom, right = 3, 11, 83, 97
        region = pair[..., top:bottom, left:right]
        margin = network.halo + conditioner.halo

        def error(conditioning: Conditioning) -> float:
            features = features_of(region, conditioning)
            part = network.decode(features, pooled, condition=conditioning.decoder)
            inside = part[..., margin:-margin, margin:-margin]
            return (inside - frame[..., top + margin : bottom - margin, left + margin : right - margin]).abs().max()

        assert error(seen) < 1e-12
        own = conditioner(*network.encode_first(*region), embedding)
        assert error(own) > 1e-5, "what is seen of the region alone must not do"

    @pytest.mark.parametrize("places", SUBSETS.values(), ids=SUBSETS)
    def test_the_halo_is_the_receptive_field(self, places):
        whole = instructed(places=places).double()
        network, conditioner = whole.network, whole.conditioner
        halo = network.halo + conditioner.halo
        centre = halo + 2
        pair = pair_of(1, 2 * centre + 1, 2 * centre + 1).double().requires_grad_()
        first = network.encode_first(*pair)
        conditioning = conditioner(*(x.detach() for x in first), instructions(1).double())
        features = conditioning.gate(network.encode_rest(*first, conditioning.compensate))
        pooled = network.pool(gradient_magnitude(features.detach()))
        pixel = network.decode(features, pooled, condition=conditioning.decoder)[0, 0, centre, centre]
        (gradient,) = torch.autograd.grad(pixel, pair)
        seen = gradient.abs().amax(dim=(0, 1, 2)).nonzero() - centre
        assert seen.amin(dim=0).tolist() == [-halo, -halo]
        assert seen.amax(dim=0).tolist() == [halo, halo]

    @pytest.mark.parametrize(
        ("depth", "places", "halo"), [(2, PLACES, 4), (2, ("gate",), 1), (2, ("encoder",), 1), (3, PLACES, 6)]
    )
    def test_the_halo_counts_the_places_that_a_pixel_passes(self, depth, places, halo):
        assert InstructionConditioner(depth, places=places).halo == halo

    @torch.no_grad()
    def test_a_thumbnail_shows_nearly_what_the_frame_shows(self):
        """Of a smooth scene at half the size: the change is the same within a tenth."""
        whole = instructed()
        coarse = torch.rand(2, 1, 1, 6, 8, generator=torch.Generator().manual_seed(3))
        pair = F.interpolate(coarse.flatten(0, 1), (192, 256), mode="bicubic").clamp(0, 1).unflatten(0, (2, 1))
        small = F.interpolate(pair.flatten(0, 1), (96, 128), mode="area").unflatten(0, (2, 1))
        first = whole.network.encode_first(*pair)
        cells = whole.conditioner.look(*whole.network.encode_first(*small))
        fused, thumbnailed = (
            finish(whole.network, *first, whole.conditioner.adapt(seen, instructions(1)))
            for seen in (whole.conditioner.look(*first), cells)
        )
        assert (fused - thumbnailed).norm() < 0.1 * (fused - whole.network(*pair)).norm()

    @pytest.mark.parametrize(("height", "width"), [(8, 8), (15, 40), (16, 24), (17, 23), (64, 33)])
    def test_cells_are_means_around_every_sixteenth_pixel(self, height, width):
        infrared, visible = random(2, 2, 8, height, width)
        cells = InstructionConditioner.look(infrared, visible)
        assert cells.shape == (2, 16, height // 16 + 1, width // 16 + 1)
        features = torch.cat([infrared, visible], dim=1)
        for row in range(cells.shape[2]):
            for column in range(cells.shape[3]):
                rows = slice(max(0, 16 * row - 8), 16 * row + 8)
                columns = slice(max(0, 16 * column - 8), 16 * column + 8)
                mean = features[:, :, rows, columns].mean(dim=(2, 3))
                torch.testing.assert_close(cells[:, :, row, column], mean, rtol=0, atol=1e-5)

    @pytest.mark.parametrize(("height", "width"), [(50, 60), (25, 41), (16, 8)])
    def test_parts_of_a_frame_add_up_to_its_cells(self, height, width):
        features = random(2, 2, 8, height, width)
        total = torch.zeros(())
        for rows in (slice(0, 7), slice(7, height)):
            for columns in (slice(0, width // 2), slice(width // 2, width)):
                part = features[..., rows, columns]
                total = total + InstructionConditioner.look_at_part(*part, rows.start, columns.start, height, width)
        cells = InstructionConditioner.look(*features)
        torch.testing.assert_close(total[:, :-1] / total[:, -1:], cells, rtol=0, atol=1e-5)


class TestExport:
    def test_onnx_takes_the_embedding_and_the_strength_as_inputs_and_any_size(self, tmp_path: Path):
        whole = instructed()
        example = (*pair_of(1, 24, 40), instructions(1), torch.ones(1))
        names = ["infrared", "luma", "embedding", "strength"]
        free = {2: "height", 3: "width"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter that needs no further package
            torch.onnx.export(
                whole,
                example,
                str(tmp_path / "instructed.onnx"),
                dynamo=False,
                input_names=names,
                output_names=["fused"],
                dynamic_axes={"infrared": free, "luma": free, "fused": free},
                opset_version=18,
            )
        session = onnxruntime.InferenceSession(tmp_path / "instructed.onnx", providers=["CPUExecutionProvider"])
        for height, width, seed, strength in ((24, 40, 0, 1.0), (33, 47, 1, 0.5), (8, 100, 2, 1.0), (31, 9, 3, 0.0)):
            inputs = [*pair_of(1, height, width), instructions(1, seed=seed), torch.tensor([strength])]
            (fused,) = session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})
            with torch.no_grad():
                torch.testing.assert_close(torch.from_numpy(fused), whole(*inputs), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"embedding": 0}, "embedding must be at least 1, got 0"),
        ({"kernels": 0}, "kernels must be at least 1"),
        ({"hidden": -1}, "hidden must be at least 1"),
        ({"places": ("gate", "stem")}, "unknown place 'stem'; give some of encoder, gate, decoder"),
        ({"places": ()}, "changed nowhere"),
        ({"depth": 1, "places": ("encoder",)}, "a VFN of depth 1 is changed nowhere"),
    ],
    ids=str,
)
def test_sizes_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        InstructionConditioner(**options)


def test_networks_of_two_depths_are_refused():
    with pytest.raises(ValueError, match="for a VFN of depth 3, not 2"):
        InstructedVFN(VFN(2), InstructionConditioner(3))
