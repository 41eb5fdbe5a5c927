"""Two real processes of a gloo group train as one process on the joint batch; no MONAI here."""

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from two_ranks import RANKS, run_two_ranks

from cl_core.distributed import rank, world_size
from cl_medical.segmentation.backbones import Backbone
from cl_medical.segmentation.data import Batch
from cl_medical.segmentation.hyper import ContrastHyper, LossHyper
from cl_medical.segmentation.inference import Inference
from cl_medical.segmentation.method import MultiDomainSegmenter
from cl_medical.segmentation.network import MultiDomainNetwork

STEPS = 3
CLASSES = {"a": ("bg", "x"), "b": ("bg", "x", "y")}


def segmenter(synchronized):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
    network = MultiDomainNetwork(
        Backbone(layers, width=6, levels=("2",), multiple=(1, 1)),
        {name: len(own) for name, own in CLASSES.items()},
        domain_norm=True,
        synchronized=synchronized,
    )
    contrast = ContrastHyper(weight=0.5, warmup=0)
    inference = Inference(patch=(8, 8))
    return MultiDomainSegmenter(
        network, CLASSES, LossHyper(), contrast, inference=inference
    ).double()


def batch():
    """Eight rows, those of rank 0 first; ranks have unequal shares of the domains."""
    g = torch.Generator().manual_seed(1)
    domain = torch.tensor([0, 0, 0, 1, 0, 1, 1, 1])
    label = torch.randint(0, 2, (8, 8, 8), generator=g) * (1 + domain.view(-1, 1, 1))
    label[2, :3] = 255
    image = torch.randn(8, 1, 8, 8, generator=g, dtype=torch.float64) + label[:, None] % 3
    return Batch(image, label, domain, torch.arange(8))


class Objective(nn.Module):
    def __init__(self, method):
        super().__init__()
        self.method = method

    def forward(self, own):
        return self.method.objective(own)[0]


def train(rows, synchronized):
    method = segmenter(synchronized)
    wrapped = Objective(method)
    if world_size() > 1:
        wrapped = DistributedDataParallel(wrapped, broadcast_buffers=False)
    optimizer = torch.optim.SGD(method.network.parameters(), lr=0.1)
    mine = Batch(*(part[rows] for part in batch()))
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = wrapped(mine)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    weights = torch.cat([p.detach().flatten() for p in method.network.parameters()])
    statistics = [b.double().flatten() for b in method.network.buffers()]
    return {"losses": torch.stack(losses), "weights": weights, "buffers": torch.cat(statistics)}


def run_rank(folder):
    dist.init_process_group("gloo")
    mine = slice(4 * rank(), 4 * rank() + 4)
    seen = {str(together): train(mine, together) for together in (True, False)}
    torch.save(seen, folder / f"{rank()}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return run_two_ranks(__file__, tmp_path_factory.mktemp("ranks"))


def test_two_ranks_with_joint_statistics_train_as_one_process(ranks):
    one = train(slice(None), synchronized=True)
    assert len(ranks) == RANKS
    for of_rank in ranks:
        for figure, expected in one.items():
            torch.testing.assert_close(of_rank["True"][figure], expected, rtol=1e-8, atol=1e-10)


def test_without_them_weights_agree_and_only_the_statistics_are_each_ranks_own(ranks):
    first, second = (of_rank["False"] for of_rank in ranks)
    assert torch.equal(first["weights"], second["weights"])
    torch.testing.assert_close(first["losses"], second["losses"])
    assert not torch.allclose(first["buffers"], second["buffers"])
    one = train(slice(None), synchronized=True)
    assert not torch.allclose(first["losses"], one["losses"], rtol=1e-6)


if __name__ == "__main__":
    run_rank(Path(sys.argv[1]))
