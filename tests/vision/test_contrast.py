"""The contrast of two views: its two kinds of negatives, and two processes against one.

The file is also the script that the ranks run: ``torchrun tests/vision/test_contrast.py FOLDER``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from two_ranks import run_two_ranks

from cl_core.losses import info_nce, nt_xent
from cl_vision.methods.contrast import directclr_loss, two_view_loss

RANKS, PAIRS = 2, 5


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_all_negatives_are_nt_xent_and_cross_ones_symmetric_info_nce():
    z1, z2 = draw(2, 6, 4)
    everything = two_view_loss(z1, z2, temperature=0.3, negatives="all")
    across = two_view_loss(z1, z2, temperature=0.3, negatives="cross")
    assert torch.equal(everything, nt_xent(z1, z2, 0.3))
    assert torch.equal(across, info_nce(z1, z2, 0.3, symmetric=True))
    assert everything > across  # more negatives


def joint_step(negatives, rows):
    """Loss and gradient of a small encoder on these rows of the joint batch."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 6)).double()
    if dist.is_initialized():
        net = DistributedDataParallel(net)
    x = draw(2, RANKS * PAIRS, 7, seed=3)[:, rows]
    r1, r2 = net(x.flatten(0, 1)).chunk(2)
    loss = directclr_loss(r1, r2, d0=4, temperature=0.2, negatives=negatives, gather=True)
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in net.parameters()])
    return {"loss": loss.detach(), "gradient": gradient}


def run_rank(folder):
    dist.init_process_group("gloo")
    mine = slice(dist.get_rank() * PAIRS, (dist.get_rank() + 1) * PAIRS)
    seen = {negatives: joint_step(negatives, mine) for negatives in ("cross", "all")}
    torch.save(seen, folder / f"{dist.get_rank()}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    return run_two_ranks(__file__, folder)


@pytest.mark.parametrize("negatives", ["cross", "all"])
def test_two_ranks_give_the_loss_and_gradient_of_the_joint_batch(ranks, negatives):
    joint = joint_step(negatives, slice(None))
    half = joint_step(negatives, slice(PAIRS))
    assert abs(joint["loss"] - half["loss"]) > 0.1  # or no gathering would pass too
    for of_rank in ranks:
        torch.testing.assert_close(of_rank[negatives], joint, rtol=1e-9, atol=1e-12)


if __name__ == "__main__":
    run_rank(Path(sys.argv[1]))
