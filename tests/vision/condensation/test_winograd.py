"""The fast layers are PyTorch's own, value and gradients, in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from cl_vision.condensation.convnet import ConvNet
from cl_vision.condensation.winograd import conv3x3, norm_relu_pool, stem


def agree(fast, slow, *inputs: torch.Tensor) -> None:
    """Compare outputs and the gradients of one random cotangent."""
    leaves = [x.requires_grad_() for x in inputs]
    a, b = fast(*leaves), slow(*leaves)
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    cotangent = torch.randn(b.shape, generator=torch.Generator().manual_seed(1)).double()
    for ours, theirs in zip(
        torch.autograd.grad(a, leaves, cotangent),
        torch.autograd.grad(b, leaves, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).double()


@pytest.mark.parametrize("size", [(8, 8), (12, 4), (6, 10)])
def test_convolution(size):
    x = draw(3, 5, *size).contiguous(memory_format=torch.channels_last)
    agree(conv3x3, lambda x, w, b: F.conv2d(x, w, b, padding=1), x, draw(7, 5, 3, 3), draw(7))


@pytest.mark.parametrize("padding", [1, 3])
def test_stem(padding):
    x = draw(2, 3, 8, 6)
    agree(
        lambda w, b: stem(x, w, b, padding),
        lambda w, b: F.conv2d(x, w, b, padding=padding),
        draw(4, 3, 3, 3),
        draw(4),
    )


def test_norm_relu_pool():
    def slow(x, weight, bias):
        return F.avg_pool2d(F.relu(F.group_norm(x, 6, weight, bias, 1e-5)), 2)

    x = draw(3, 6, 8, 4).contiguous(memory_format=torch.channels_last)
    agree(lambda *a: norm_relu_pool(*a, 1e-5), slow, x, draw(6), draw(6))


def test_the_whole_network_in_single_precision():
    # Gradients differ by more than rounding: some unit lies on the other side of its kink.
    network = ConvNet(3, 4, (32, 32), width=96)
    x = draw(4, 3, 32, 32).float()
    torch.testing.assert_close(network.forward_once(x), network(x), rtol=1e-4, atol=1e-5)
    y = torch.arange(4)
    parameters = [p for p in network.parameters() if p.ndim > 1]
    pairs = [
        torch.autograd.grad(F.cross_entropy(f(x), y), parameters)
        for f in (network.forward_once, network)
    ]
    for a, b in zip(*pairs, strict=True):
        assert float((a - b).norm() / b.norm()) < 0.05
