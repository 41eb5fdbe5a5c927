"""How well a small set trains networks from scratch.

The protocol of the released code: fresh weights; SGD of learning rate 0.01, momentum 0.9 and weight
decay 5e-4 in batches of up to 256; 300 epochs, or 1,000 with augmentation (and one more, as the
code counts); once, after epoch $E/2 + 1$, the rate is divided by ten and the momentum forgotten;
accuracy on all test images with the last weights.

Several networks train together: their parameters are stacked and one call computes all, which is
faster where a network alone does not fill the machine. Each has generators of its own, so it
becomes the same network alone or in company.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from cl_core.seeding import derive_seed
from cl_vision.condensation import siamese
from cl_vision.condensation.convnet import fresh
from cl_vision.condensation.legacy_augmentation import LEGACY, augment_each
from cl_vision.condensation.real_images import RealImages

__all__ = ["Recipe", "accuracy", "train_networks"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How networks are trained.

    Attributes:
        epochs: $E$; one more is run.
        lr: Learning rate.
        momentum: Of SGD.
        weight_decay: Of SGD.
        batch: Images a step.
        strategy: Of siamese augmentation, each image with parameters of its own; or one of
            :data:`~cl_vision.condensation.legacy_augmentation.LEGACY`; empty for none.
    """

    epochs: int = 300
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch: int = 256
    strategy: str = ""


def train_networks(
    build: Callable[[], nn.Module],
    sets: Sequence[tuple[Float[Tensor, "n c h w"], Int[Tensor, " n"]]],
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    together: bool = True,
    device: torch.device | str = "cpu",
) -> list[nn.Module]:
    """Train a fresh network on each of some sets of one size.

    Args:
        build: Makes a network of any weights.
        sets: Images, normalised, and their classes; one entry a network.
        recipe: Of the training.
        seeds: Of each network: its weights, order and augmentation.
        together: Train them as one stack; else one after another.
        device: Where to.

    Returns:
        The networks, in eval mode.
    """
    if len(seeds) != len(sets):
        raise ValueError(f"a seed for each of {len(sets)} networks, got {len(seeds)}")
    if not together and len(sets) > 1:
        return [
            train_networks(build, [one], recipe, seeds=[seed], device=device)[0]
            for one, seed in zip(sets, seeds, strict=True)
        ]
    generators = [torch.Generator().manual_seed(derive_seed(seed, 5)) for seed in seeds]
    networks = [fresh(build, generator, device) for generator in generators]
    x = torch.stack([images.to(device) for images, _ in sets])
    y = torch.stack([labels.to(device) for _, labels in sets])
    if any(isinstance(module, nn.BatchNorm2d) for module in networks[0].modules()):
        for place, network in enumerate(networks):  # running statistics do not stack
            _fit(_Alone(network), x[place][None], y[place][None], recipe, [generators[place]])
    elif len(networks) == 1:
        _fit(_Alone(networks[0]), x, y, recipe, generators)
    else:
        stack = _Stack(networks)
        _fit(stack, x, y, recipe, generators)
        stack.hand_back(networks)
    return [network.eval() for network in networks]


@torch.no_grad()
def accuracy(network: nn.Module, test: RealImages, *, batch: int = 512) -> float:
    """Share of test images whose class has the largest logit."""
    device = next(network.parameters()).device
    right = 0
    for rows in torch.split(torch.arange(len(test)), batch):
        logits = network(test.take(rows).to(device))
        right += int((logits.argmax(1).cpu() == test.labels[rows]).sum())
    return right / len(test)


class _Alone:
    """One network, under the interface of a stack."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network.train()
        self.parameters = list(network.parameters())

    def __call__(self, x: Tensor) -> Tensor:
        once = getattr(self.network, "forward_once", self.network)
        logits: Tensor = once(x[0])[None]
        return logits


class _Stack:
    """Networks of one build with their parameters stacked."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        for network in networks:
            network.train()
        state, self._buffers = stack_module_state(list(networks))
        self._state = {name: p.detach().requires_grad_() for name, p in state.items()}
        self.parameters = list(self._state.values())
        self._shape = networks[0]

    def __call__(self, x: Tensor) -> Tensor:
        def one(state: dict[str, Tensor], images: Tensor) -> Tensor:
            logits: Tensor = functional_call(self._shape, state, (images,))
            return logits

        logits: Tensor = vmap(one)(self._state, x)
        return logits

    def hand_back(self, networks: Sequence[nn.Module]) -> None:
        """Give each network its own parameters."""
        for place, network in enumerate(networks):
            with torch.no_grad():
                for name, parameter in network.named_parameters():
                    parameter.copy_(self._state[name][place])


def _fit(
    networks: _Alone | _Stack,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    generators: Sequence[torch.Generator],
) -> None:
    """Train; ``x`` is ``(k, n, c, h, w)`` and ``y`` ``(k, n)``, a row a network."""
    n = x.shape[1]
    optimizer = _optimizer(networks.parameters, recipe)
    for epoch in range(recipe.epochs + 1):
        orders = _orders(n, recipe, generators)
        for start in range(0, n, recipe.batch):
            images, labels = x, y
            if orders is not None:
                images, labels = _taken(x, y, [o[start : start + recipe.batch] for o in orders])
            if recipe.strategy:
                images = _augmented(images, recipe.strategy, generators)
            optimizer.zero_grad()
            logits = networks(images)
            losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(
                len(x), -1
            )
            losses.mean(1).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if epoch == recipe.epochs // 2 + 1:  # the momentum starts anew with the smaller rate
            optimizer = _optimizer(networks.parameters, replace(recipe, lr=recipe.lr / 10))


def _optimizer(parameters: Sequence[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        parameters,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )


def _orders(n: int, recipe: Recipe, generators: Sequence[torch.Generator]) -> list[Tensor] | None:
    if n <= recipe.batch:  # one step takes all: their order does not matter
        return None
    return [torch.randperm(n, generator=generator) for generator in generators]


def _taken(x: Tensor, y: Tensor, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    pairs = [(x[k][r], y[k][r]) for k, r in enumerate(rows)]
    return torch.stack([a for a, _ in pairs]), torch.stack([b for _, b in pairs])


def _augmented(x: Tensor, strategy: str, generators: Sequence[torch.Generator]) -> Tensor:
    """An operation a network, with parameters of each image; alike operations go together."""
    if strategy in LEGACY:
        return torch.stack(
            [augment_each(one, strategy, g) for one, g in zip(x, generators, strict=True)]
        )
    size = (x.shape[3], x.shape[4])
    draws = [siamese.augment(strategy, x.shape[1], size, g) for g in generators]
    parts: list[Tensor | None] = [None] * len(draws)
    for name in sorted({d.name for d in draws}):
        places = [k for k, d in enumerate(draws) if d.name == name]
        parameters = torch.cat([draws[k].parameters for k in places])
        done = siamese.apply(x[places].flatten(0, 1), name, parameters)
        for k, images in zip(places, done.view(len(places), -1, *done.shape[1:]), strict=True):
            parts[k] = images
    return torch.stack([part for part in parts if part is not None])
