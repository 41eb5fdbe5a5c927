"""MoCo, alone and on two real ranks.

The file is also the script that the ranks run: ``torchrun tests/vision/test_moco.py FOLDER``.
"""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from two_ranks import run_two_ranks

from cl_core.distributed import rank
from cl_core.errors import InputError
from cl_vision.hyper import MoCoHyper, OptimizerHyper
from cl_vision.methods.moco import MoCo, require_queue

RANKS, SHARE, QUEUE = 2, 4, 24


class Batch(NamedTuple):
    views: list[Tensor]
    label: Tensor
    row: Tensor


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(rows: slice = slice(None), step: int = 0, n: int = RANKS * SHARE) -> Batch:
    """Images of which two halves differ in brightness, so that batch statistics do."""
    bright = torch.arange(n).div(n / 2).floor()[:, None, None, None] * 3
    views = [draw(n, 1, 4, 4, seed=10 * step + v) + bright for v in (0, 1)]
    row = torch.arange(n) + 100
    return Batch([view[rows] for view in views], torch.full_like(row, -1)[rows], row[rows])


class Encoder(nn.Sequential):
    out_features = 5

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5))


def moco(**options: object) -> MoCo:
    torch.manual_seed(3)
    hyper = MoCoHyper(**{"dim": 4, "queue": QUEUE, "momentum": 0.9, **options})
    return MoCo(Encoder(), hyper, optimizer=OptimizerHyper(), seed=7)


def slow_loss(q: Tensor, k: Tensor, queue: Tensor, temperature: float, own: Tensor) -> float:
    """The equation with loops, in float64."""
    total = 0.0
    for i in range(len(q)):
        terms = [float(q[i] @ k[i]) / temperature]
        terms += [float(q[i] @ n) / temperature for j, n in enumerate(queue) if not own[i, j]]
        total += torch.tensor(terms, dtype=torch.float64).logsumexp(0).item() - terms[0]
    return total / len(q)


def run_rank(folder: Path) -> None:
    dist.init_process_group("gloo")
    mine = slice(rank() * SHARE, (rank() + 1) * SHARE)
    seen: dict[str, object] = {}
    for choice in ("shuffle", "local"):
        module = moco(batch_norm=choice)
        k = module.keys(batch(mine).views[1])
        module.enqueue(k, batch(mine).row)
        seen[choice] = {
            "k": k,
            "queue": module.queue.features,
            "ids": module.queue.ids,
            "mean": module.key.encoder[0][2].running_mean,
        }
    try:
        moco(queue=SHARE)._check(batch(mine))
    except InputError as error:
        seen["message"] = str(error)
    torch.save(seen, folder / f"{rank()}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    return run_two_ranks(__file__, folder)


def keys_of_shares(shares: Tensor) -> Tensor:
    """The keys when each row of ``shares`` names the images of one batch-norm batch."""
    images, keys, module = batch().views[1], torch.zeros(RANKS * SHARE, 4), moco()
    for share in shares:
        keys[share] = module.keys(images[share])  # in training mode: by the share's own statistics
    return keys


def test_without_shuffling_each_rank_normalises_its_own_images(ranks):
    expected = keys_of_shares(torch.arange(RANKS * SHARE).view(RANKS, SHARE))
    actual = torch.cat([of_rank["local"]["k"] for of_rank in ranks])
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_shuffling_normalises_random_shares_and_puts_the_keys_back(ranks):
    actual = torch.cat([of_rank["shuffle"]["k"] for of_rank in ranks])
    local = torch.cat([of_rank["local"]["k"] for of_rank in ranks])
    assert (actual - local).abs().max() > 0.1  # other images share the batch
    images = range(RANKS * SHARE)
    splits = [(0, *others) for others in combinations(images[1:], SHARE - 1)]
    matches = []
    for first in splits:  # exactly one split into two batches explains all keys
        shares = torch.tensor([first, [i for i in images if i not in first]])
        if torch.allclose(actual, keys_of_shares(shares), rtol=1e-5, atol=1e-5):
            matches.append(first)
    assert len(matches) == 1
    assert matches[0] != tuple(images[:SHARE])


def test_every_rank_queues_the_keys_of_all_in_the_order_of_the_ranks(ranks):
    for choice in ("shuffle", "local"):
        keys = torch.cat([of_rank[choice]["k"] for of_rank in ranks])
        for of_rank in ranks:
            queue = of_rank[choice]["queue"]
            assert torch.equal(queue[: RANKS * SHARE], keys)
            assert torch.equal(queue[RANKS * SHARE :], moco().queue.features[RANKS * SHARE :])
            assert of_rank[choice]["ids"].tolist() == [*range(100, 108), *[-1] * 16]


def test_the_batches_of_all_ranks_have_to_fit_the_queue(ranks):
    for of_rank in ranks:
        assert (
            "queue 4 is smaller than the batch of 8 images over all devices" in (of_rank["message"])
        )


@pytest.mark.parametrize("mask", [False, True])
def test_a_step_equals_the_equation(mask):
    module = moco(mask_own_keys=mask)
    module.log = lambda *args, **options: None
    for step in range(5):  # the queue holds three batches
        b = batch(step=step)
        with torch.no_grad():
            reference = moco()
            reference.load_state_dict(module.state_dict())
            _, q = reference.query(b.views[0])
            before = module.queue.features.clone().double()
            own = b.row[:, None] == module.queue.ids
            reference.key.update(nn.Sequential(module.encoder, module.projector))
            k = reference.keys(b.views[1])
        out = module.training_step(b, step)
        own = own if mask else torch.zeros_like(own)
        expected = slow_loss(q.double(), k.double(), before, 0.2, own)
        assert float(out["loss"].detach()) == pytest.approx(expected, rel=1e-5)
        out["loss"].backward()
        with torch.no_grad():  # a step of the optimiser, so that the two encoders part
            for p in module.parameters():
                if p.grad is not None:
                    p.sub_(0.5 * p.grad)
                    p.grad = None
    assert own.any() == mask
    assert module.queue.pointer == 40 % QUEUE
    assert not out["embedding"].requires_grad


def test_only_the_query_encoder_learns_by_gradient():
    module = moco()
    module.log = lambda *args, **options: None
    module.training_step(batch(), 0)["loss"].backward()
    assert all(p.grad is not None for p in [*module.encoder.parameters()])
    assert all(p.grad is None for p in module.key.parameters())
    assert not module.queue.features.requires_grad


def test_queries_are_drawn_to_their_keys():
    module = moco(temperature=0.5)
    module.log = lambda *args, **options: None
    b = batch()
    out = module.training_step(b, 0)
    out["loss"].backward()
    _, q = module.query(b.views[0])
    k = module.keys(b.views[1])
    with torch.no_grad():
        for p in module.parameters():
            if p.grad is not None:
                p.sub_(0.05 * p.grad)
        _, after = module.query(b.views[0])
    assert float(((after - q) * k).sum().detach()) > 0.05


@pytest.mark.parametrize(
    ("queue", "message"),
    [
        (32, "queue 32 is smaller than the batch of 48 images over all devices: set queue to 48"),
        (
            100,
            "queue 100 is no multiple of the batch of 48 images over all devices: set queue to 96",
        ),
    ],
)
def test_a_queue_that_the_batches_do_not_fill_evenly_is_refused(queue, message):
    with pytest.raises(InputError, match=message):
        require_queue(queue, 48)
    require_queue(96, 48)


def test_a_single_view_is_refused():
    b = batch()
    with pytest.raises(ValueError, match="needs two views of every image, got 1"):
        moco().training_step(b._replace(views=b.views[:1]), 0)


if __name__ == "__main__":
    run_rank(Path(sys.argv[1]))
