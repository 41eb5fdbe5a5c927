"""MONAI's networks as backbones: features at full resolution, and the maps of their levels.

Each is built with batch norm and without its last layer, whose place the domains' heads take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Architecture", "Backbone", "Plan", "build_backbone", "plan_levels"]

Architecture = Literal["dynunet", "unet", "basic_unet", "segresnet", "attention_unet"]

_ANISOTROPIC = 2.0
"""An axis this much coarser than the finest is not pooled yet."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a backbone is built of; plain numbers, so that a model card holds it.

    Attributes:
        architecture: Which of MONAI's networks.
        spatial_dims: 2 or 3.
        in_channels: Of the images.
        filters: Channels of each level, the bottleneck last.
        strides: Of each level, an axis each; the first keeps the resolution.
        kernels: Of each level, an axis each; DynUNet's alone.
    """

    architecture: Architecture
    spatial_dims: int
    in_channels: int
    filters: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]

    @property
    def multiple(self) -> tuple[int, ...]:
        """What the size of an image must be divisible by, an axis each."""
        sizes = [1] * self.spatial_dims
        for stride in self.strides:
            sizes = [size * step for size, step in zip(sizes, stride, strict=True)]
        return tuple(sizes)


class Backbone(nn.Module):
    """A network that gives features at the resolution of its input.

    Args:
        network: Maps ``(n, c, *s)`` to features ``(n, width, *s)``.
        width: Channels of the features.
        levels: Paths of the modules whose outputs are the levels' maps, from the finest to the
            bottleneck, each behind its norm and activation.
        multiple: What the size of an image must be divisible by, an axis each.
        in_channels: Of the images.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        width: int,
        levels: Sequence[str],
        multiple: Sequence[int],
        in_channels: int = 1,
    ) -> None:
        super().__init__()
        self.network = network
        self.in_channels = in_channels
        self.width = width
        self.levels = tuple(levels)
        self.multiple = tuple(multiple)

    def forward(self, x: Float[Tensor, "n c ..."]) -> Float[Tensor, "n w ..."]:
        return cast(Tensor, self.network(x))

    def with_maps(self, x: Tensor, levels: Sequence[int] = (-1,)) -> tuple[Tensor, list[Tensor]]:
        """The features, and the maps of the levels asked for, by their place in ``levels``."""
        paths = [self.levels[level] for level in levels]
        kept: dict[str, Tensor] = {}

        def keep(path: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
                kept[path] = output

            return hook

        # Hooks that stay would follow the module into copies, and keep maps of the original.
        hooks = [
            self.network.get_submodule(path).register_forward_hook(keep(path))
            for path in dict.fromkeys(paths)
        ]
        try:
            features = self.network(x)
        finally:
            for handle in hooks:
                handle.remove()
        return features, [kept[path] for path in paths]


def plan_levels(
    levels: int, patch: Sequence[int], spacing: Sequence[float]
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Choose strides and kernels that treat a coarse axis as what it is.

    An axis at least twice as coarse as the finest is neither pooled nor reached across by a kernel,
    until pooling the others has made them as coarse (as nnU-Net plans it, Isensee et al. 2021). An
    axis is pooled while at least four voxels of the patch are left of it.

    Args:
        levels: Of the network, the bottleneck included.
        patch: Voxels of an axis.
        spacing: mm of an axis, typical of the data.

    Returns:
        Strides, ones for the first level, and kernels: an axis each for each level.
    """
    size, mm = list(patch), list(spacing)
    strides, kernels = [], []
    for level in range(levels):
        fine = [own < _ANISOTROPIC * min(mm) for own in mm]
        step = tuple(
            2 if level and own and length >= 4 else 1
            for own, length in zip(fine, size, strict=True)
        )
        size = [-(-length // s) for length, s in zip(size, step, strict=True)]
        mm = [own * s for own, s in zip(mm, step, strict=True)]
        strides.append(step)
        kernels.append(tuple(3 if own < _ANISOTROPIC * min(mm) else 1 for own in mm))
    return tuple(strides), tuple(kernels)


def build_backbone(plan: Plan) -> Backbone:
    """Build one of MONAI's networks with batch norm.

    Raises:
        ValueError: If the architecture cannot be built of such levels.
    """
    build = {
        "dynunet": _dynunet,
        "unet": _unet,
        "basic_unet": _basic_unet,
        "segresnet": _segresnet,
        "attention_unet": _attention_unet,
    }.get(plan.architecture)
    if build is None:
        raise ValueError(f"there is no architecture {plan.architecture!r}")
    if len(plan.filters) < 3 or len(plan.strides) != len(plan.filters):
        raise ValueError(
            f"a network has three levels at least and a stride for each, got filters "
            f"{plan.filters} and strides {plan.strides}"
        )
    return build(plan)


def _dynunet(plan: Plan) -> Backbone:
    from monai.networks.nets import DynUNet

    network = DynUNet(
        spatial_dims=plan.spatial_dims,
        in_channels=plan.in_channels,
        out_channels=plan.filters[0],
        kernel_size=[list(kernel) for kernel in plan.kernels],
        strides=[list(stride) for stride in plan.strides],
        upsample_kernel_size=[list(stride) for stride in plan.strides[1:]],
        filters=list(plan.filters),
        norm_name="batch",
    )
    network.output_block = nn.Identity()
    # Every block hangs in the network twice; `skip_layers` is what runs.
    for name in ("input_block", "downsamples", "bottleneck", "upsamples"):
        delattr(network, name)
    inner, levels = "skip_layers", []
    for _ in plan.filters[1:]:
        levels.append(f"{inner}.downsample")
        inner = f"{inner}.next_layer"
    return Backbone(
        network,
        width=plan.filters[0],
        levels=[*levels, inner],
        multiple=plan.multiple,
        in_channels=plan.in_channels,
    )


class _Finished(nn.Module):
    """A network that ends in a bare convolution, with the norm and activation it lacks."""

    def __init__(self, network: nn.Module, width: int, spatial_dims: int) -> None:
        super().__init__()
        self.network = network
        self.norm = (nn.BatchNorm2d if spatial_dims == 2 else nn.BatchNorm3d)(width)
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.act(self.norm(self.network(x))))


def _unet(plan: Plan) -> Backbone:
    from monai.networks.nets import UNet

    width = plan.filters[0]
    network = UNet(
        spatial_dims=plan.spatial_dims,
        in_channels=plan.in_channels,
        out_channels=width,
        channels=plan.filters,
        strides=cast(Any, plan.strides[1:]),
        num_res_units=2,
        norm="batch",
    )
    inner = "network.model"
    levels = []
    for _ in plan.filters[1:]:
        levels.append(f"{inner}.0")
        inner = f"{inner}.1.submodule"
    return Backbone(
        _Finished(network, width, plan.spatial_dims),
        width=width,
        levels=[*levels, inner],
        multiple=plan.multiple,
        in_channels=plan.in_channels,
    )


def _basic_unet(plan: Plan) -> Backbone:
    from monai.networks.nets import BasicUNet

    if len(plan.filters) != 5 or any(step != 2 for stride in plan.strides[1:] for step in stride):
        raise ValueError(
            f"basic_unet has five levels that halve every axis, got filters {plan.filters} and "
            f"strides {plan.strides}"
        )
    width = plan.filters[0]
    network = BasicUNet(
        spatial_dims=plan.spatial_dims,
        in_channels=plan.in_channels,
        out_channels=width,
        features=(*plan.filters, width),
        norm="batch",
    )
    network.final_conv = nn.Identity()
    levels = ["conv_0", *(f"down_{i}" for i in range(1, 5))]
    return Backbone(
        network, width=width, levels=levels, multiple=plan.multiple, in_channels=plan.in_channels
    )


def _segresnet(plan: Plan) -> Backbone:
    from monai.networks.nets import SegResNet

    width = plan.filters[0]
    doubled = tuple(width * 2**level for level in range(len(plan.filters)))
    if plan.filters != doubled or any(s != 2 for stride in plan.strides[1:] for s in stride):
        raise ValueError(
            f"segresnet doubles its filters and halves every axis a level, got filters "
            f"{plan.filters} and strides {plan.strides}"
        )
    count = len(plan.filters)
    network = SegResNet(
        spatial_dims=plan.spatial_dims,
        init_filters=width,
        in_channels=plan.in_channels,
        out_channels=width,
        norm="batch",
        blocks_down=(1, *(2,) * (count - 2), 4),
        blocks_up=(1,) * (count - 1),
    )
    network.conv_final[2] = nn.Identity()
    levels = [f"down_layers.{i}" for i in range(count)]
    return Backbone(
        network, width=width, levels=levels, multiple=plan.multiple, in_channels=plan.in_channels
    )


def _attention_unet(plan: Plan) -> Backbone:
    from monai.networks.nets import AttentionUnet

    width = plan.filters[0]
    network = AttentionUnet(
        spatial_dims=plan.spatial_dims,
        in_channels=plan.in_channels,
        out_channels=width,
        channels=plan.filters,
        strides=cast(Any, plan.strides[1:]),
    )
    cast(Any, network.model)[2] = nn.Identity()
    levels, inner = ["model.0"], "model.1.submodule"
    for _ in plan.filters[2:]:
        levels.append(f"{inner}.0")
        inner = f"{inner}.1.submodule"
    return Backbone(
        network,
        width=width,
        levels=[*levels, inner],
        multiple=plan.multiple,
        in_channels=plan.in_channels,
    )
