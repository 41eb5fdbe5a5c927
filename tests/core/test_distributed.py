"""Two real processes under torchrun against one process with the joint batch.

The file is also the script that the ranks run: ``torchrun tests/core/test_distributed.py FOLDER``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from two_ranks import run_two_ranks

from cl_core.distributed import gather_rows, is_main, rank, sum_over_ranks, world_size
from cl_core.losses import info_nce, nt_xent, sup_con

RANKS, PAIRS, STEPS = 2, 6, 5
LABELS = torch.tensor([0, 1, 0, 2, 3, 0, 4, 0, 1, 1, 0, 5])  # 2, 3, 4 and 5 occur once
ONE_RANK = torch.tensor([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])  # no positive on the second rank
UNLABELLED = torch.tensor([0, -1, 1, 0, 0, -1, -1, 0, 1, -1, 2, -1])  # three classes
LONE = torch.arange(RANKS * PAIRS)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


BANK = draw(7, 3, seed=9)
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # embeddings of two views, row numbers -> loss


MASK = draw(RANKS * PAIRS, RANKS * PAIRS, seed=4) > 1.1  # some rows are empty, on both ranks


def supervised(
    labels: Tensor | None, views: int = 2, mask: Tensor | None = None, **options: Any
) -> Loss:
    def loss(a: Tensor, b: Tensor, at: Tensor) -> Tensor:
        y, m = (None if x is None else x[at] for x in (labels, mask))
        features = torch.stack([a, b][:views], 1)
        return sup_con(features, y, 0.2, mask=m, gather=True, block_size=5, **options)

    return loss


def learnable(a: Tensor, b: Tensor, _: Tensor) -> Tensor:
    tau = 0.1 + gather_rows(a).mean().square()  # equal on all ranks
    return nt_xent(a, b, tau, gather=True) + info_nce(a, b, tau, gather=True, block_size=5)


LOSSES: dict[str, Loss] = {
    "nt_xent": lambda a, b, _: nt_xent(a, b, 0.3, gather=True, block_size=5),
    "cold nt_xent": lambda a, b, _: nt_xent(a, b, 0.02, gather=True),
    "info_nce": lambda a, b, _: info_nce(a, b, 0.2, gather=True, block_size=5),
    "info_nce of detached keys": lambda a, b, _: info_nce(a, b.detach(), gather=True),
    "symmetric info_nce": lambda a, b, _: info_nce(a, b, 0.2, symmetric=True, gather=True),
    "info_nce with a bank": lambda a, b, _: info_nce(a, b, negatives=BANK, gather=True),
    "info_nce with batch and bank": lambda a, b, _: info_nce(
        a, b, negatives=BANK, in_batch=True, gather=True
    ),
    "sup_con": supervised(LABELS),
    "sup_con without labels": supervised(None),
    "sup_con, first view as anchor": supervised(LABELS, contrast="one"),
    "sup_con, one view": supervised(LABELS, views=1),
    "sup_con, one view, zero": supervised(LABELS, views=1, no_positive="zero"),
    "sup_con, positives on one rank": supervised(ONE_RANK, views=1),
    "sup_con, no positive": supervised(LONE, views=1),
    "sup_con, some unlabelled": supervised(UNLABELLED),
    "sup_con inside classes": supervised(
        UNLABELLED, positives="own", denominator="own_class", min_classes=3
    ),
    "sup_con without false negatives": supervised(UNLABELLED, denominator="no_false_negatives"),
    "sup_con, too few classes": supervised(UNLABELLED, min_classes=4),
    "sup_con of a mask": supervised(None, mask=MASK),
    "sup_con of a mask, one view": supervised(None, views=1, mask=MASK),
    "sup_con of a mask without false negatives": supervised(
        None, mask=MASK, positives="own", denominator="no_false_negatives"
    ),
    "sup_con of a mask, first view as anchor": supervised(
        None, mask=MASK, denominator="own_class", contrast="one"
    ),
    "learnable temperature": learnable,
}


def train(loss: Loss, rows: slice) -> dict[str, Tensor]:
    """Five steps of SGD on these rows of the joint batch: losses, first gradient, last weights."""
    torch.manual_seed(0)
    net: nn.Module = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    if world_size() > 1:
        net = DistributedDataParallel(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    batch, at = draw(STEPS, 2, RANKS * PAIRS, 5), torch.arange(RANKS * PAIRS)[rows]
    losses, first_grad = [], torch.empty(0)
    for views in batch:
        a, b = net(views[:, rows].flatten(0, 1)).chunk(2)
        optimizer.zero_grad()
        value = loss(a, b, at)
        value.backward()
        if not losses:
            first_grad = torch.cat([p.grad.flatten().clone() for p in net.parameters()])
        optimizer.step()
        losses.append(value.detach())
    weights = torch.cat([p.detach().flatten() for p in net.parameters()])
    return {"losses": torch.stack(losses), "first_grad": first_grad, "weights": weights}


def gathering() -> dict[str, object]:
    """What the ranks see of the functions themselves."""
    rows = (torch.arange(6.0).reshape(3, 2) + 10 * rank()).requires_grad_()
    gathered = gather_rows(rows)
    weight = torch.arange(12.0).reshape(6, 2) * (rank() + 1)
    (grad,) = torch.autograd.grad((gathered * weight).sum(), rows)
    part = torch.tensor(rank() + 2.0, requires_grad=True)
    total = sum_over_ranks(part)
    (part_grad,) = torch.autograd.grad(total * (rank() + 1), part)
    try:
        gather_rows(torch.zeros(3 + rank(), 2))
        message = "none"
    except ValueError as error:
        message = str(error)
    return {
        "identity": torch.tensor([rank(), world_size(), is_main()]),
        "gathered": gathered.detach(),
        "grad": grad,
        "labels": gather_rows(torch.tensor([rank(), 7]), grad=False),
        "detached": gather_rows(rows, grad=False).requires_grad,
        "total": total.detach(),
        "part_grad": part_grad,
        "message": message,
    }


def run_rank(folder: Path) -> None:
    dist.init_process_group("gloo")
    mine = slice(rank() * PAIRS, (rank() + 1) * PAIRS)
    seen = {name: train(loss, mine) for name, loss in LOSSES.items()}
    torch.save({"losses": seen, "gathering": gathering()}, folder / f"{rank()}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict]]:
    folder = tmp_path_factory.mktemp("ranks")
    return run_two_ranks(__file__, folder)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("figure", ["losses", "first_grad", "weights"])
def test_two_ranks_train_as_one_process_with_the_joint_batch(ranks, name, figure):
    joint = train(LOSSES[name], slice(None))[figure]
    for of_rank in ranks:
        actual = of_rank["losses"][name][figure]
        torch.testing.assert_close(actual, joint, rtol=1e-9, atol=1e-12)


def test_the_joint_batch_is_not_the_same_as_two_separate_ones():
    # Or the test above would pass without any gathering.
    joint = train(LOSSES["nt_xent"], slice(None))["losses"]
    halves = [train(LOSSES["nt_xent"], half)["losses"] for half in (slice(6), slice(6, 12))]
    assert (sum(halves) / 2 - joint).abs().min() > 0.1


def test_rows_are_gathered_in_the_order_of_the_ranks(ranks):
    first = torch.arange(6.0).reshape(3, 2)
    for number, of_rank in enumerate(ranks):
        seen = of_rank["gathering"]
        assert seen["identity"].tolist() == [number, RANKS, number == 0]
        assert torch.equal(seen["gathered"], torch.cat([first, first + 10]))
        assert seen["labels"].tolist() == [0, 7, 1, 7]
        assert seen["detached"] is False


def test_gradients_are_summed_over_the_losses_of_the_ranks(ranks):
    weight = torch.arange(12.0).reshape(2, 3, 2) * (1 + 2)  # rank 0 weighs by 1, rank 1 by 2
    for number, of_rank in enumerate(ranks):
        seen = of_rank["gathering"]
        assert torch.equal(seen["grad"], weight[number])
        assert seen["total"] == 2 + 3
        assert seen["part_grad"] == 1 + 2


def test_unequal_numbers_of_rows_are_refused_on_every_rank(ranks):
    for of_rank in ranks:
        message = of_rank["gathering"]["message"]
        assert "equally many rows on every rank, got [3, 4]" in message


def test_a_process_alone_is_the_whole_world():
    rows = torch.ones(2, 3, requires_grad=True)
    assert (rank(), world_size(), is_main()) == (0, 1, True)
    assert gather_rows(rows) is rows
    assert sum_over_ranks(rows) is rows
    assert not gather_rows(rows, grad=False).requires_grad


if __name__ == "__main__":
    run_rank(Path(sys.argv[1]))
