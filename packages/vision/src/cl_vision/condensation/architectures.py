"""The networks that a condensed set is tried on, by name.

The pool of the released code (MLP, ConvNet, LeNet, AlexNet of CIFAR size, VGG11 and ResNet18 with
instance norm), for images of any size: where an image is too small for the pools or strides of an
architecture made for 32 pixels, the last ones are left out. An instance norm that saw one pixel a
channel would pass nothing on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from cl_vision.condensation.convnet import ConvNet

__all__ = ["ARCHITECTURES", "Architecture", "builder"]

Architecture = Literal["mlp", "convnet", "lenet", "alexnet", "vgg11", "resnet18"]

Size = tuple[int, int]


def builder(
    architecture: Architecture, channels: int, num_classes: int, size: Size
) -> Callable[[], nn.Module]:
    """Give what builds one of the pool.

    Args:
        architecture: Its name.
        channels: Of the images.
        num_classes: Logits.
        size: Height and width of the images.

    Raises:
        ValueError: If there is no such architecture.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"there is no architecture {architecture!r}; there are {', '.join(ARCHITECTURES)}"
        )
    return partial(ARCHITECTURES[architecture], channels, num_classes, size)


class _Trunk(nn.Module):
    """Features, flattened, and a classifier."""

    def __init__(self, features: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.classifier = classifier

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        logits: Tensor = self.classifier(self.embed(x))
        return logits

    def embed(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        features: Tensor = self.features(x)
        return features.reshape(len(x), -1)


def _mlp(channels: int, num_classes: int, size: Size) -> nn.Module:
    features = nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * size[0] * size[1], 128),
        nn.ReLU(),
        nn.Linear(128, 128),
        nn.ReLU(),
    )
    return _Trunk(features, nn.Linear(128, num_classes))


def _convnet(channels: int, num_classes: int, size: Size) -> nn.Module:
    """Of as much depth, up to 3, as the size can be halved."""
    edges = (32, 32) if channels == 1 and size == (28, 28) else size
    depth = max(d for d in range(4) if all(edge % 2**d == 0 for edge in edges))
    pooling: Literal["avg", "none"] = "avg" if depth else "none"
    return ConvNet(channels, num_classes, size, depth=depth or 3, pooling=pooling)


def _lenet(channels: int, num_classes: int, size: Size) -> nn.Module:
    # As at 28 and 32 pixels, but for small images, of which 5 x 5 windows would leave nothing.
    first = 2 if channels == 1 or min(size) < 32 else 0
    second = 2 if min(size) < 16 else 0
    layers = [
        nn.Conv2d(channels, 6, 5, padding=first),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, padding=second),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
    h, w = (((edge + 2 * first - 4) // 2 + 2 * second - 4) // 2 for edge in size)
    head = nn.Sequential(nn.Linear(16 * h * w, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU())
    return _Trunk(nn.Sequential(*layers, nn.Flatten(), head), nn.Linear(84, num_classes))


def _alexnet(channels: int, num_classes: int, size: Size) -> nn.Module:
    first = nn.Conv2d(channels, 128, 5, padding=4 if channels == 1 and size == (28, 28) else 2)
    layers: list[nn.Module] = [first, nn.ReLU()]
    h, w = ((edge + 4 if first.padding == (4, 4) else edge) for edge in size)
    h, w = _pool(layers, h, w, 1)
    layers += [nn.Conv2d(128, 192, 5, padding=2), nn.ReLU()]
    h, w = _pool(layers, h, w, 1)
    for before, after in ((192, 256), (256, 192), (192, 192)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    h, w = _pool(layers, h, w, 1)
    return _Trunk(nn.Sequential(*layers), nn.Linear(192 * h * w, num_classes))


def _vgg11(channels: int, num_classes: int, size: Size) -> nn.Module:
    padding = 3 if channels == 1 and size == (28, 28) else 1
    h, w = (edge + 2 * padding - 2 for edge in size)
    layers: list[nn.Module] = []
    before = channels
    stages = ((64,), (128,), (256, 256), (512, 512), (512, 512))
    for number, stage in enumerate(stages, start=1):
        for width in stage:
            layers.append(nn.Conv2d(before, width, 3, padding=1 if layers else padding))
            layers += [nn.GroupNorm(width, width), nn.ReLU()]
            before = width
        h, w = _pool(layers, h, w, 1 if number == len(stages) else 2)
    return _Trunk(nn.Sequential(*layers), nn.Linear(512 * h * w, num_classes))


class _Block(nn.Module):
    """Two convolutions and what leads around them."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(width, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(width, width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.GroupNorm(width, width)
            )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class _Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def _resnet18(channels: int, num_classes: int, size: Size) -> nn.Module:
    padding = 3 if channels == 1 and size == (28, 28) else 1
    edge = min(size) + 2 * padding - 2
    layers: list[nn.Module] = [
        nn.Conv2d(channels, 64, 3, padding=padding, bias=False),
        nn.GroupNorm(64, 64),
        nn.ReLU(),
    ]
    before = 64
    for stage, width in enumerate((64, 128, 256, 512)):
        stride = 2 if stage and edge >= 4 else 1
        edge = -(-edge // stride)
        layers += [_Block(before, width, stride), _Block(width, width, 1)]
        before = width
    return _Trunk(nn.Sequential(*layers, _Mean()), nn.Linear(512, num_classes))


def _pool(layers: list[nn.Module], h: int, w: int, least: int) -> Size:
    """Append a pool, unless it would leave fewer than ``least`` pixels along an edge."""
    if min(h, w) // 2 < least:
        return h, w
    layers.append(nn.MaxPool2d(2))
    return h // 2, w // 2


ARCHITECTURES: dict[Architecture, Callable[[int, int, Size], nn.Module]] = {
    "mlp": _mlp,
    "convnet": _convnet,
    "lenet": _lenet,
    "alexnet": _alexnet,
    "vgg11": _vgg11,
    "resnet18": _resnet18,
}
"""What builds each of the pool."""
