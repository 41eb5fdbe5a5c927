r"""The ConvNet that images are condensed with, and its fresh weights.

``depth`` blocks of convolution 3 x 3, norm, activation and pooling, then a linear layer (Zhao et
al. 2021, as in the released code). "Instance norm" is a group norm of one channel a group, with
scale and shift and without running statistics.

Weights are PyTorch's defaults, $U(-1/\sqrt{k}, 1/\sqrt{k})$ with $k$ the fan-in, for weights and
biases alike; but drawn from a generator that the caller owns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl_vision.condensation.average_pool import AveragePool
from cl_vision.condensation.winograd import conv3x3, norm_relu_pool, stem

__all__ = ["Activation", "ConvNet", "Norm", "Pooling", "fresh", "initialise"]

Norm = Literal["none", "batch", "layer", "instance", "group"]
Activation = Literal["sigmoid", "relu", "leakyrelu"]
Pooling = Literal["max", "avg", "none"]

_GROUPS = 4  # of "group"


class ConvNet(nn.Module):
    """Blocks of convolution, norm, activation, pooling; then one linear layer.

    Args:
        channels: Of the images.
        num_classes: Logits.
        size: Height and width of the images, not necessarily equal.
        width: Channels of every block.
        depth: Blocks.
        norm: ``instance``, ``group`` (4 groups), ``layer`` (over channels, rows and columns
            together), ``batch`` or ``none``.
        activation: ``relu``, ``leakyrelu`` (0.01) or ``sigmoid``.
        pooling: ``avg`` or ``max`` over 2 x 2, or ``none``.

    Raises:
        ValueError: If pooling cannot halve the size ``depth`` times, or the groups do not divide
            the width.

    Note:
        Images of one channel and exactly 28 x 28 are padded by 3 in the first convolution and go
        on as 32 x 32, as in the released code. Its code pads every image of one channel so; here
        other sizes are padded by 1.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        size: tuple[int, int],
        *,
        width: int = 128,
        depth: int = 3,
        norm: Norm = "instance",
        activation: Activation = "relu",
        pooling: Pooling = "avg",
    ) -> None:
        super().__init__()
        if norm == "group" and width % _GROUPS:
            raise ValueError(f"group norm has {_GROUPS} groups, which do not divide width {width}")
        padding = 3 if channels == 1 and tuple(size) == (28, 28) else 1
        h, w = (edge + 2 * padding - 2 for edge in size)
        if pooling != "none" and (h % 2**depth or w % 2**depth):
            raise ValueError(
                f"a network of depth {depth} halves its images {depth} times, which {size[0]} x "
                f"{size[1]} pixels do not allow: give sizes that {2**depth} divides, or less depth"
            )
        layers: list[nn.Module] = []
        for block in range(depth):
            layers.append(
                nn.Conv2d(width if block else channels, width, 3, padding=1 if block else padding)
            )
            layers += _norm(norm, width, h, w)
            layers.append(_ACTIVATIONS[activation]())
            if pooling != "none":
                layers.append(AveragePool() if pooling == "avg" else nn.MaxPool2d(2))
                h, w = h // 2, w // 2
        # Smaller ones lose more by the many small calls than they gain.
        self._has_fast_layers = (
            width >= 96
            and min(size) >= 32
            and ((norm, activation, pooling) == ("instance", "relu", "avg"))
        )
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * h * w, num_classes)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits."""
        logits: Tensor = self.classifier(self.embed(x))
        return logits

    def forward_once(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The same logits, of which gradients by the parameters are taken once and no more.

        On a CPU, for the default layers, in less than half of the time.
        """
        if not self._has_fast_layers or x.device.type != "cpu" or x.dtype != torch.float32:
            return self.forward(x)
        x = x.contiguous(memory_format=torch.channels_last)
        layers = list(self.features)
        for block in range(0, len(layers), 4):
            conv, norm = layers[block], layers[block + 1]
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.GroupNorm)
            assert conv.bias is not None
            if block:
                x = conv3x3(x, conv.weight, conv.bias)
            else:
                x = stem(x, conv.weight, conv.bias, int(conv.padding[0]))
            x = norm_relu_pool(x, norm.weight, norm.bias, norm.eps)
        logits: Tensor = self.classifier(x.reshape(len(x), -1))
        return logits

    def embed(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """What the last block gives, flattened: the features of an image."""
        # reshape: a batch that is laid out channels last has no view as rows.
        features: Tensor = self.features(x)
        return features.reshape(len(x), -1)


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw weights and biases anew, those of norms set to 1 and 0.

    Args:
        network: Of convolutions, linear layers and norms.
        generator: On the CPU; the same state gives the same weights on every device.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for parameter in module.parameters(recurse=False):
                drawn = torch.rand(parameter.shape, generator=generator)
                with torch.no_grad():
                    parameter.copy_(drawn * (2 * bound) - bound)
        elif callable(reset := getattr(module, "reset_parameters", None)):
            reset()  # norms: constants, nothing is drawn


def fresh(
    build: Callable[[], nn.Module],
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Build a network with weights of the generator; no global generator is moved.

    Args:
        build: Makes the network, of any weights.
        generator: On the CPU.
        device: Where the network shall be.
    """
    with torch.device("meta"):  # default weights would be drawn from the global generator
        network = build()
    network.to_empty(device=device)
    initialise(network, generator)
    return network


def _norm(norm: Norm, width: int, h: int, w: int) -> list[nn.Module]:
    if norm == "none":
        return []
    if norm == "batch":
        return [nn.BatchNorm2d(width)]
    if norm == "layer":
        return [nn.LayerNorm([width, h, w])]
    return [nn.GroupNorm(width if norm == "instance" else _GROUPS, width)]


_ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "leakyrelu": lambda: nn.LeakyReLU(0.01),
}
