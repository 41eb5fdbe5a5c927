"""Small residual networks for small images and for processors, named by their widths."""

from __future__ import annotations

import importlib
import re

from jaxtyping import Float
from torch import Tensor, nn

from cl_core.errors import InputError

__all__ = ["SmallResNet", "small_resnet_widths"]


def small_resnet_widths(name: str) -> tuple[int, ...] | None:
    """Return the widths that ``name`` spells, ``None`` if it names another kind of network.

    Example:
        >>> small_resnet_widths("resnet-16-32-128"), small_resnet_widths("resnet18")
        ((16, 32, 128), None)
        >>> small_resnet_widths("resnet-pool-16-32")
        (16, 32)
    """
    if not re.fullmatch(r"resnet(-pool)?(-[1-9]\d{0,4})+", name):
        return None
    return tuple(int(width) for width in name.removeprefix("resnet-pool").split("-")[1:])


class SmallResNet(nn.Module):
    """A ResNet (He et al. 2016) of one basic block a stage; the first stage keeps the resolution.

    The stem is a 3x3 convolution of stride 2 without pooling, to which
    ``build_backbone(stem="cifar")`` gives stride 1. Every later stage halves the resolution; the
    mean over the positions is the representation. The parts bear torchvision's names.
    ``resnet-pool-16-32`` is the name of one with max-pooling behind the stem.

    Args:
        widths: Channels of each stage; the stem has as many as the first.
        in_channels: Channels of an image.
        zero_init_residual: Start the residual branches at zero (Goyal et al. 2017).
        pool: Halve the resolution once more behind the stem, as torchvision's ResNets do: a third
            of the time.

    Raises:
        ValueError: If there is no width.
        InputError: If torchvision is missing, whose block this is.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        *,
        in_channels: int = 3,
        zero_init_residual: bool = False,
        pool: bool = False,
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError("a residual network needs the width of at least one stage")
        try:
            blocks = importlib.import_module("torchvision.models.resnet")
        except ImportError as error:
            raise InputError(
                "image encoders need torchvision: pip install cl-core[images]"
            ) from error
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if pool else nn.Identity()
        width = widths[0]
        self.stages = []
        for number, planes in enumerate(widths, start=1):
            stride = 1 if number == 1 else 2
            shortcut = None
            if stride != 1 or planes != width:
                shortcut = nn.Sequential(
                    nn.Conv2d(width, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
                )
            block = blocks.BasicBlock(width, planes, stride, shortcut)
            if zero_init_residual:
                nn.init.zeros_(block.bn2.weight)
            self.add_module(f"layer{number}", nn.Sequential(block))
            self.stages.append(f"layer{number}")
            width = planes
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        self.out_features = width

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        x: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        return x.mean(dim=(2, 3))
