"""What condensation is for, at the smallest size at which it shows."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch
from torch import nn

from cl_vision.condensation.assessment import Recipe, train_networks
from cl_vision.condensation.config import CondenseConfig
from cl_vision.condensation.dynamics import kernel_velocity
from cl_vision.condensation.loop import Loop, condense_images
from cl_vision.condensation.real_images import load_real
from cl_vision.condensation.rehearsal import RehearsalMemory, forgetting
from cl_vision.condensation.selection import herding, nearest_to_centroids, nearest_to_mean, select
from cl_vision.condensation.setting import open_labelled


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    images = open_labelled(CondenseConfig(data="digits", out=tmp_path_factory.mktemp("out")))
    return [load_real(part) for part in images.train_and_test(0.2, seed=0)]


def test_contrast_keeps_what_class_by_class_matching_loses(digits):
    # Every digit gets 10 times one direction and 2 times four others in random amounts.
    generator = torch.Generator().manual_seed(0)
    shared, *others = nn.functional.normalize(torch.randn(5, 64, generator=generator))
    parts = []
    for side in digits:
        x = side.pixels.flatten(1).float()
        x = (x - digits[0].pixels.flatten(1).float().mean(0)) / 0.28
        amounts = torch.randn(len(x), 4, generator=generator)
        x = x + 10 * shared + 2 * amounts @ torch.stack(others)
        parts.append(x.view(-1, 1, 8, 8))
    (x, x_test), (y, y_test) = parts, (side.labels for side in digits)
    start = x[select("random", x.flatten(1), y, 1, generator)]
    sets = {"random": start}
    for name, contrast in (("DC", False), ("DCC", True)):
        loop = Loop(outer_loop=20, outer_warmup=0, contrast=contrast, real_batch=64)
        sets[name] = condense_images(x, y, start, mlp, loop, generator)
    found = {}
    for name, images in sets.items():
        some = [(images, torch.arange(10))] * 3
        networks = train_networks(mlp, some, Recipe(epochs=300), seeds=range(3))
        with torch.no_grad():
            right = [float((f(x_test).argmax(1) == y_test).float().mean()) for f in networks]
        found[name] = fmean(right)
    assert found["DCC"] > found["DC"] + 0.25
    assert found["DCC"] > found["random"] + 0.20


def test_networks_trained_together_are_those_trained_alone(digits):
    train, test = digits
    labels = torch.arange(10)
    rows = select("random", torch.zeros(len(train), 1), train.labels, 1, torch.Generator())
    sets = [(train.take(rows), labels)] * 3

    for strategy in ("", "crop_scale_rotate", "color_cutout_flip"):
        recipe = Recipe(epochs=8, strategy=strategy)
        together = train_networks(mlp, sets, recipe, seeds=(5, 6, 7))
        alone = train_networks(mlp, sets, recipe, seeds=(5, 6, 7), together=False)
        x = test.take(torch.arange(50))
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a(x), b(x), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(together[0](x), together[1](x), atol=1e-2)


def test_the_rate_falls_once_and_the_momentum_is_forgotten():
    x, y = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1), torch.tensor([0, 1])

    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(1, 2))

    (network,) = train_networks(build, [(x, y)], Recipe(epochs=4), seeds=[3])
    (again,) = train_networks(build, [(x, y)], Recipe(epochs=0, lr=0.0), seeds=[3])
    weight, bias = (p.detach().clone() for p in again.parameters())
    speeds = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for epoch in range(5):  # E + 1 run; after epoch E // 2 + 1 = 3 the rate is a tenth
        p = (x.flatten(1) @ weight.T + bias).softmax(1) - nn.functional.one_hot(y)
        slopes = [p.T @ x.flatten(1) / 2, p.mean(0)]
        if epoch == 4:
            speeds = [torch.zeros_like(s) for s in speeds]
        speeds = [
            0.9 * s + g + 5e-4 * w for s, g, w in zip(speeds, slopes, (weight, bias), strict=True)
        ]
        lr = 0.001 if epoch == 4 else 0.01
        weight, bias = weight - lr * speeds[0], bias - lr * speeds[1]
    for parameter, expected in zip(network.parameters(), (weight, bias), strict=True):
        torch.testing.assert_close(parameter.detach(), expected)


def test_real_images_that_stand_for_a_class():
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0], [10.0]])  # mean 3.2
    assert nearest_to_mean(x, 2).tolist() == [3, 2]
    # 3 is nearest; (3 + x) / 2 is at 2 nearest to 3.2, and (3 + 2 + x) / 3 at 1, not at 10.
    assert herding(x, 3).tolist() == [3, 2, 1]
    assert sorted(nearest_to_centroids(x, 2, 0).tolist()) in ([1, 4], [2, 4])
    labels = torch.tensor([0, 0, 1, 1, 1])
    rows = select("random", x, labels, 2, torch.Generator().manual_seed(0))
    assert labels[rows].tolist() == [0, 0, 1, 1]
    assert len(set(rows.tolist())) == 4
    with pytest.raises(ValueError, match="class 0 has 2 rows, fewer than 3"):
        select("herding", x, labels, 3, torch.Generator())


def test_a_memory_keeps_its_own_and_comes_back():
    memory = RehearsalMemory(1, lambda x, y, k: torch.stack([x[y == c][0] for c in y.unique()]))
    x = torch.arange(4.0).view(4, 1, 1, 1)
    memory.add_task(x, torch.tensor([7, 5, 7, 5]))
    memory.add_task(x + 10, torch.tensor([2, 2, 9, 9]))
    assert memory.labels.tolist() == [5, 7, 2, 9]
    assert memory.images.flatten().tolist() == [1, 0, 10, 12]
    other = RehearsalMemory(1, memory.fill)
    other.load_state_dict(memory.state_dict())
    images, labels = other.sample(3, torch.Generator().manual_seed(0))
    assert images.shape == (3, 1, 1, 1)
    assert len(set(labels.tolist())) == 3
    with pytest.raises(ValueError, match="kept with 1 images a class, not 2"):
        RehearsalMemory(2, memory.fill).load_state_dict(memory.state_dict())
    with pytest.raises(ValueError, match="fill gave 2 images, 4 were asked for"):
        RehearsalMemory(2, memory.fill).add_task(x, torch.tensor([0, 0, 1, 1]))


def test_forgetting_is_what_was_lost_of_the_best():
    accuracies = [[0.9], [0.95, 0.8], [0.5, 0.85, 0.7]]
    assert forgetting(accuracies) == pytest.approx(((0.95 - 0.5) + (0.8 - 0.85)) / 2)
    assert forgetting([[0.5]]) == 0


def test_the_kernel_stands_still_where_nothing_is_learned():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 1, 2, 2, generator=generator)

    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))

    options = {"epochs": 6, "every": 3, "generator": generator}
    still = kernel_velocity(build, x, torch.tensor([0, 1, 0, 1]), x, lr=0.0, **options)
    assert still == pytest.approx([0, 0], abs=1e-6)
    moving = kernel_velocity(build, x, torch.tensor([0, 1, 0, 1]), x, lr=0.5, **options)
    assert all(v > 1e-4 for v in moving)
