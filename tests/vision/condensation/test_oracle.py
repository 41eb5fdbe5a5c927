"""The rules beyond the golden vectors' sizes, against loops in float64 that share no code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cl_vision.condensation.chunks import match_classes
from cl_vision.condensation.convnet import ConvNet, fresh
from cl_vision.condensation.loop import Loop, outer_iteration
from cl_vision.condensation.matching import dc_loss, dcc_loss

# norm, activation, pooling, channels, size, depth, real images of each class, images a class
CASES = {
    "instance, not square": ("instance", "relu", "avg", 3, (8, 12), 2, (3, 5, 2), 2),
    "no norm, one image": ("none", "relu", "max", 3, (8, 8), 2, (1, 4), 1),
    "layer, sigmoid": ("layer", "sigmoid", "avg", 3, (8, 12), 2, (4, 1, 3), 1),
    "group, leaky": ("group", "leakyrelu", "max", 1, (12, 8), 1, (2, 2, 1, 3), 2),
    "no pooling": ("instance", "sigmoid", "none", 2, (5, 7), 2, (2, 3), 1),
    "grey 28 x 28": ("instance", "relu", "avg", 1, (28, 28), 3, (2, 1), 1),
    "grey 32 x 16": ("none", "relu", "avg", 1, (32, 16), 3, (2, 1), 1),
}
WIDTH = 4


def forward(weights: list[Tensor], x: Tensor, case: str) -> Tensor:
    """The network, image by image and written out."""
    norm, activation, pooling, channels, size, depth, *_ = CASES[case]
    logits = []
    for image in x:
        own = list(weights)
        h = image[None]
        for block in range(depth):
            quirk = block == 0 and channels == 1 and size == (28, 28)
            h = F.conv2d(h, own.pop(0), own.pop(0), padding=3 if quirk else 1)
            if norm != "none":
                scale, shift = own.pop(0), own.pop(0)
                groups = {"instance": WIDTH, "group": 4, "layer": 1}[norm]
                parts = []
                for group in h[0].chunk(groups):
                    centred = group - group.mean()
                    parts.append(centred / (centred.square().mean() + 1e-5).sqrt())
                h = torch.cat(parts)[None]
                by = (slice(None), None, None) if norm != "layer" else ()
                h = h * scale[by] + shift[by]
            if activation == "relu":
                h = torch.where(h > 0, h, torch.zeros_like(h))
            elif activation == "leakyrelu":
                h = torch.where(h > 0, h, 0.01 * h)
            else:
                h = 1 / (1 + torch.exp(-h))
            if pooling != "none":
                quads = torch.stack([h[..., i::2, j::2] for i in (0, 1) for j in (0, 1)])
                h = quads.mean(0) if pooling == "avg" else quads.amax(0)
        logits.append(own.pop(0) @ h.flatten() + own.pop(0))
        assert not own
    return torch.stack(logits)


def entropy(logits: Tensor, label: int) -> Tensor:
    return torch.stack([torch.log(torch.exp(row).sum()) - row[label] for row in logits]).mean()


def distance(own: list[Tensor], target: list[Tensor]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for a, b in zip(own, target, strict=True):
        if a.ndim == 1:
            continue
        rows_a, rows_b = (g.reshape(len(g), -1) for g in (a, b))
        for s, t in zip(rows_a, rows_b, strict=True):
            norms = torch.linalg.vector_norm(s) * torch.linalg.vector_norm(t)
            total = total + 1 - (s @ t) / (norms + 1e-6)
    return total


def slow_loss(
    weights: list[Tensor], real: list[Tensor], own: list[Tensor], case: str, *, contrast: bool
) -> Tensor:
    classes = len(real)
    targets, gradients = [], []
    for label in range(classes):
        loss = entropy(forward(weights, real[label], case), label)
        targets.append([g.detach() for g in torch.autograd.grad(loss, weights)])
        loss = entropy(forward(weights, own[label], case), label)
        gradients.append(torch.autograd.grad(loss, weights, create_graph=True))
    if not contrast:
        pairs = zip(gradients, targets, strict=True)
        return torch.stack([distance(list(s), t) for s, t in pairs]).sum()
    summed = [
        [sum(parts) / classes for parts in zip(*some, strict=True)] for some in (gradients, targets)
    ]
    return distance(*summed)


def problem(case: str) -> tuple[ConvNet, list[Tensor], Tensor, list[Tensor]]:
    norm, activation, pooling, channels, size, depth, counts, ipc = CASES[case]
    generator = torch.Generator().manual_seed(sum(map(ord, case)))

    def build() -> ConvNet:
        return ConvNet(
            channels,
            len(counts),
            size,
            width=WIDTH,
            depth=depth,
            norm=norm,
            activation=activation,
            pooling=pooling,
        )

    network = fresh(build, generator).double()
    with torch.no_grad():  # norms are fresh at 1 and 0, which would hide a wrong place
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator).double()
    real = [torch.randn(n, channels, *size, generator=generator).double() for n in counts]
    x = torch.randn(ipc * len(counts), channels, *size, generator=generator).double()
    return network, real, x, [p.detach().clone().requires_grad_() for p in network.parameters()]


@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_losses_and_their_gradients(case, contrast):
    network, real, x, weights = problem(case)
    ipc = CASES[case][-1]
    torch.testing.assert_close(network(x), forward(weights, x, case), rtol=1e-10, atol=1e-12)
    leaf = x.clone().requires_grad_()
    value = slow_loss(weights, real, list(leaf.split(ipc)), case, contrast=contrast)
    (slope,) = torch.autograd.grad(value, leaf)
    own = x.clone().requires_grad_()
    quick = (dcc_loss if contrast else dc_loss)(network, real, list(own.split(ipc)))
    assert quick.item() == pytest.approx(value.item(), rel=1e-10)
    close = {"rtol": 1e-8, "atol": 1e-10 * float(slope.abs().max())}
    torch.testing.assert_close(torch.autograd.grad(quick, own)[0], slope, **close)
    for chunks in ((None, None), (1, 1), (2, 3), (99, 99)):
        found = match_classes(
            network,
            real,
            list(x.split(ipc)),
            contrast=contrast,
            real_chunk=chunks[0],
            syn_chunk=chunks[1],
        )
        assert found.loss.item() == pytest.approx(value.item(), rel=1e-10)
        torch.testing.assert_close(found.gradient, slope, **close)


@pytest.mark.parametrize("contrast", [False, True])
def test_chunks_change_the_last_digit_only(contrast):
    network, real, x, _ = problem("instance, not square")
    whole, parts = (
        match_classes(
            network,
            real,
            list(x.split(2)),
            contrast=contrast,
            real_chunk=real_chunk,
            syn_chunk=syn_chunk,
        )
        for real_chunk, syn_chunk in ((None, None), (2, 1))
    )
    assert float((whole.gradient - parts.gradient).norm() / whole.gradient.norm()) < 2e-15
    assert float(abs(whole.loss - parts.loss) / whole.loss) < 1e-15


@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize("case", ["no norm, one image", "layer, sigmoid"])
def test_the_loop_step_by_step(case, contrast):
    network, real, x, weights = problem(case)
    ipc = CASES[case][-1]
    loop = Loop(
        inner_loop=3,
        network_epochs=2,
        contrast=contrast,
        outer_warmup=1,
        inner_warmup=1,
        image_lr=0.3,
        image_momentum=0.4,
        network_lr=0.05,
    )
    images = x.clone().requires_grad_()
    labels = torch.arange(len(real)).repeat_interleave(ipc)
    steps = outer_iteration(
        images,
        labels,
        network,
        torch.optim.SGD([images], lr=0.3, momentum=0.4),
        loop,
        outer=0,
        real_batches=lambda: real,
        generator=torch.Generator(),
    )
    slow, speed = x.clone(), torch.zeros_like(x)
    for step in range(3):
        matched = contrast and step >= 1  # within the warm-up: its first step is class by class
        leaf = slow.clone().requires_grad_()
        loss = slow_loss(weights, real, list(leaf.split(ipc)), case, contrast=matched)
        assert steps[step][0].item() == pytest.approx(loss.item(), rel=1e-9)
        assert steps[step][2] == matched
        speed = 0.4 * speed + torch.autograd.grad(loss, leaf)[0]
        slow = slow - 0.3 * speed
        if step == 2:
            break
        for _ in range(2):
            logits = forward(weights, slow, case)
            parts = [entropy(logits[k : k + 1], int(y)) for k, y in enumerate(labels)]
            loss = torch.stack(parts).mean()
            slopes = torch.autograd.grad(loss, weights)
            weights = [
                (w - 0.05 * g).detach().requires_grad_()
                for w, g in zip(weights, slopes, strict=True)
            ]
    torch.testing.assert_close(images.detach(), slow, rtol=1e-8, atol=1e-10)
    for parameter, weight in zip(network.parameters(), weights, strict=True):
        torch.testing.assert_close(parameter.detach(), weight.detach(), rtol=1e-8, atol=1e-12)


def test_what_all_classes_share_leaves_the_contrast_and_drowns_class_by_class():
    # A linear classifier at zero, features u + v_c with |u| = 100 |v|: rows (p_k - [k=c]) h_c.
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(32, generator=generator).double()
    v = torch.randn(5, 32, generator=generator).double()
    u, v = 100 * u / u.norm(), v / v.norm(dim=1, keepdim=True)
    network = torch.nn.Linear(32, 5).double()
    torch.nn.init.zeros_(network.weight)
    torch.nn.init.zeros_(network.bias)
    real = list((u + v)[:, None])
    for own, class_wise, contrastive in (
        (u.expand(5, -1), 1e-4, 0.999),  # nothing of the class
        (u + v.roll(1, 0), 3e-4, 0.9),  # the wrong class
    ):
        images = list(own[:, None])
        assert dc_loss(network, real, images).item() / 25 < class_wise
        assert dcc_loss(network, real, images).item() / 5 > contrastive
    assert dcc_loss(network, real, real).item() < 1e-3
