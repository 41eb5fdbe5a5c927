"""The networks of torchvision and timm without their classifiers, and changes to a ResNet's parts.

:mod:`cl_core.networks.backbones` makes encoders of them; the libraries are imported when one is
built.
"""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cl_core.errors import InputError
from cl_core.networks.small_resnet import SmallResNet, small_resnet_widths

__all__ = [
    "RESNETS",
    "Trunk",
    "backbone_rows",
    "create_trunk",
    "dilate",
    "download_weights",
    "is_resnet",
    "known_name",
    "resnet_stages",
    "use_cifar_stem",
]

RESNETS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
"""The names that mean torchvision's ResNets; any other name is timm's."""


@dataclass(frozen=True)
class Trunk:
    """A network without its classifier.

    Attributes:
        net: Maps images to representations ``(n, out_features)``.
        out_features: Width of the representation.
        first: Names of the convolutions that see the image.
        classifier: Names of the layers that were left out.
        image_size: The edge in pixels of the only images it takes, if its size is fixed.
    """

    net: nn.Module
    out_features: int
    first: tuple[str, ...]
    classifier: tuple[str, ...]
    image_size: int | None = None


def backbone_rows() -> list[dict[str, str]]:
    """Every encoder by name, and whose it is: what ``list backbones`` shows."""
    timm = _library("timm").list_models()
    own = [{"backbone": "resnet-16-32-128", "library": "this suite, by its widths"}]
    return [
        *({"backbone": name, "library": "torchvision"} for name in RESNETS),
        *own,
        *({"backbone": f"timm/{name}", "library": "timm"} for name in timm),
    ]


def known_name(name: str) -> str:
    """Return ``name`` for a torchvision or small ResNet, ``timm/name`` for what only timm has.

    Raises:
        InputError: If neither library knows it, naming the nearest names.
    """
    if name in RESNETS or small_resnet_widths(name):
        return name
    timm = _library("timm")
    bare = name.removeprefix("timm/")
    if timm.is_model(bare):
        try:
            timm.get_pretrained_cfg(bare)
        except RuntimeError as error:  # NAME.TAG with a tag it does not know
            raise InputError(f"unknown architecture {name!r}: {_first_line(error)}") from error
        return f"timm/{bare}"
    near = difflib.get_close_matches(bare, {*RESNETS, *timm.list_models()}, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists the names"
    raise InputError(f"unknown architecture {name!r}: {hint}")


def create_trunk(
    name: str, *, in_channels: int, image_size: int | None, zero_init_residual: bool
) -> Trunk:
    """Build the network of a :func:`known_name` with random weights.

    Raises:
        InputError: If the library cannot build it so.
    """
    if name in RESNETS:
        net = _library("torchvision.models").get_model(
            name, weights=None, zero_init_residual=zero_init_residual
        )
        width, net.fc = net.fc.in_features, nn.Identity()
        if in_channels != 3:
            net.conv1 = _first_conv(in_channels, net.conv1.out_channels, 7, stride=2)
        return Trunk(net, width, ("conv1",), ("fc",))
    if widths := small_resnet_widths(name):
        net = SmallResNet(
            widths,
            in_channels=in_channels,
            zero_init_residual=zero_init_residual,
            pool=name.startswith("resnet-pool"),
        )
        return Trunk(net, net.out_features, ("conv1",), ("fc",))
    name = name.removeprefix("timm/")
    timm = _library("timm")
    settings = timm.get_pretrained_cfg(name)
    try:
        net = timm.create_model(
            name, num_classes=0, in_chans=in_channels, **_size(settings, image_size)
        )
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise InputError(
            f"timm cannot build {name} for {in_channels} channels and image size {image_size}: "
            f"{_first_line(error)}"
        ) from error
    if zero_init_residual and not is_resnet(net):
        raise InputError(f"zero_init_residual is for ResNets, and {name} is none: leave it out")
    return Trunk(
        net,
        # What the classifier would have seen, which may be wider than the feature map.
        getattr(net, "head_hidden_size", None) or net.num_features,
        _names(settings.first_conv if settings else None),
        _names(settings.classifier if settings else None),
        (image_size or settings.input_size[-1]) if _is_fixed(settings) else None,
    )


def download_weights(name: str, *, image_size: int | None) -> dict[str, Tensor]:
    """Return the library's weights for RGB images, downloaded or from its cache.

    Raises:
        InputError: If they cannot be had.
    """
    try:
        if name in RESNETS:
            net = _library("torchvision.models").get_model(name, weights="DEFAULT")
        else:
            timm, bare = _library("timm"), name.removeprefix("timm/")
            size = _size(timm.get_pretrained_cfg(bare), image_size)
            net = timm.create_model(bare, pretrained=True, num_classes=0, **size)
    except InputError:
        raise
    except Exception as error:  # urllib, httpx, the hub: each fails with errors of its own
        raise InputError(
            f"the pretrained weights of {name} cannot be had ({_first_line(error)}): fetch the "
            "file elsewhere and give it as weights"
        ) from error
    state: dict[str, Tensor] = net.state_dict()
    return state


def is_resnet(net: nn.Module) -> bool:
    """Return whether ``net`` has the parts of a ResNet, torchvision's, timm's or a small one's."""
    parts = ("conv1", "bn1", "maxpool", "layer1", "layer2", "layer3", "layer4")
    return isinstance(net, SmallResNet) or all(hasattr(net, part) for part in parts)


def resnet_stages(net: Any, images: Tensor) -> list[Tensor]:
    """Return the outputs of a ResNet's stages: four, but for a small one."""
    activation = net.relu if hasattr(net, "relu") else net.act1  # torchvision's name, timm's
    x = net.maxpool(activation(net.bn1(net.conv1(images))))
    maps = []
    for stage in getattr(net, "stages", ("layer1", "layer2", "layer3", "layer4")):
        x = net.get_submodule(stage)(x)
        maps.append(x)
    return maps


def use_cifar_stem(net: Any, in_channels: int) -> None:
    """Begin a ResNet with a 3x3 convolution of stride 1 and no pooling."""
    net.conv1 = _first_conv(in_channels, net.bn1.num_features, 3, stride=1)
    net.maxpool = nn.Identity()


def dilate(net: Any, output_stride: int) -> None:
    """Give the last stages of a torchvision ResNet stride 1 and dilated 3x3 convolutions.

    torchvision's own switch knows bottleneck blocks only and leaves each stage's first
    convolution undilated; here all of a stage's convolutions are, as in GLCNet's backbone.
    """
    stride, dilation = 8, 1  # after the second stage
    for stage in (net.layer3, net.layer4):
        stride *= 2
        if stride <= output_stride:
            continue
        dilation *= 2
        for conv in stage.modules():
            if isinstance(conv, nn.Conv2d):
                conv.stride = (1, 1)
                if conv.kernel_size == (3, 3):
                    conv.dilation = conv.padding = (dilation, dilation)


def _first_conv(in_channels: int, width: int, kernel: int, *, stride: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, width, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # both libraries'
    return conv


def _library(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"image encoders need {module.partition('.')[0]}: pip install cl-core[images]"
        ) from error


def _is_fixed(settings: Any) -> bool:
    return settings is not None and bool(settings.fixed_input_size)


def _size(settings: Any, image_size: int | None) -> dict[str, int]:
    return {"img_size": image_size} if image_size is not None and _is_fixed(settings) else {}


def _names(layers: str | tuple[str, ...] | list[str] | None) -> tuple[str, ...]:
    return (layers,) if isinstance(layers, str) else tuple(layers or ())


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
