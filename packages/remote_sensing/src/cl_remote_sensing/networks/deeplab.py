"""DeepLabV3+ as GLCNet's authors built it: the head of the encoder and the decoder.

Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation",
ECCV 2018, with plain convolutions in the place of separable ones, two 3x3 blocks after the skip
connection and dropout as in the official code of GLCNet (Li et al., TGRS 2022).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = [
    "ASPP",
    "RATES",
    "SKIP_CHANNELS",
    "PaperDecoder",
    "initialize",
    "resize",
    "use_short_taps",
]

RATES = {16: (6, 12, 18), 8: (12, 24, 36)}
"""Dilations of the pyramid by output stride: the same field of view at twice the resolution."""

SKIP_CHANNELS = 48
"""Channels to which the low-level features are reduced."""


def resize(x: Float[Tensor, "b c h w"], size: Sequence[int]) -> Float[Tensor, "b c y x"]:
    """Scale feature maps bilinearly so that the corner pixels' centres stay where they are."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


def _block(before: int, after: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class _AtrousConv(nn.Conv2d):
    """A dilated 3x3 convolution that skips the taps which see nothing but padding.

    On maps no larger than the dilation, such as those of 64-pixel tiles, only the middle tap meets
    the map, and the convolution is a 1x1 one for a ninth of the cost.
    """

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        if max(x.shape[-2:]) > self.dilation[0]:
            return super().forward(x)
        return F.conv2d(x, self.weight[..., 1:2, 1:2], groups=self.groups)


def use_short_taps(module: nn.Module) -> None:
    """Let the dilated 3x3 convolutions of a module skip taps that see only padding.

    Names, weights and results stay the same.
    """
    for parent in list(module.modules()):
        for name, conv in parent.named_children():
            if type(conv) is nn.Conv2d and conv.kernel_size == (3, 3) and conv.dilation[0] > 1:
                short = _AtrousConv(
                    conv.in_channels,
                    conv.out_channels,
                    3,
                    padding=conv.dilation[0],
                    dilation=conv.dilation[0],
                    groups=conv.groups,
                    bias=False,
                    device="meta",  # draws no random numbers
                )
                short.weight = conv.weight
                setattr(parent, name, short)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: one map seen at four scales and as a whole.

    Args:
        channels: Of the backbone's last stage.
        width: Of each branch and of the output.
        rates: Dilations of the three 3x3 branches; 6, 12, 18 at output stride 16.
        dropout: Of the output.
    """

    def __init__(
        self, channels: int, width: int, rates: Sequence[int], *, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [_block(channels, width, 1), *(_block(channels, width, 3, rate) for rate in rates)]
        )
        use_short_taps(self.branches)
        self.pool = _block(channels, width, 1)
        self.project = nn.Sequential(
            *_block((len(self.branches) + 1) * width, width, 1), nn.Dropout(dropout)
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        # Scaling a single pixel up bilinearly copies it.
        whole = self.pool(x.mean((-2, -1), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        out: Tensor = self.project(torch.cat([*(branch(x) for branch in self.branches), whole], 1))
        return out


class PaperDecoder(nn.Module):
    """Join the encoder's output with low-level features, without the last 1x1 convolution.

    Args:
        low_channels: Of the low-level features.
        width: Of the encoder's output and of the result.
        dropout: After the first and the second 3x3 block; (0, 0) in pretraining.
    """

    def __init__(
        self, low_channels: int, width: int, *, dropout: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        super().__init__()
        self.skip = _block(low_channels, SKIP_CHANNELS, 1)
        self.fuse = nn.Sequential(
            *_block(width + SKIP_CHANNELS, width, 3),
            nn.Dropout(dropout[0]),
            *_block(width, width, 3),
            nn.Dropout(dropout[1]),
        )

    def forward(
        self, low: Float[Tensor, "b c y x"], e: Float[Tensor, "b d h w"]
    ) -> Float[Tensor, "b d y x"]:
        out: Tensor = self.fuse(torch.cat([self.skip(low), resize(e, low.shape[-2:])], 1))
        return out


def initialize(module: nn.Module) -> None:
    r"""Draw every convolution from $N(0, 2/n_\text{in})$ (He et al. 2015); norms start as identity.

    The official code leaves the stem of other than three bands at the framework's default; here it
    is drawn like the rest.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
