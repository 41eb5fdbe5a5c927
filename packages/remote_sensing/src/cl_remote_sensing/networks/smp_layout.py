"""DeepLabV3+ of segmentation_models_pytorch, taken apart into a network's four modules."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl_core.errors import InputError
from cl_remote_sensing.networks.deeplab import RATES, resize, use_short_taps

__all__ = ["encoder_rows", "smp_modules"]


class _SmpDecoder(nn.Module):
    """smp's decoder behind the pyramid, for images of any size: its own needs multiples of 16."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.head = decoder.aspp[1:]
        self.skip = decoder.block1
        self.fuse = decoder.block2

    def forward(
        self, low: Float[Tensor, "b c y x"], e: Float[Tensor, "b d h w"]
    ) -> Float[Tensor, "b d y x"]:
        out: Tensor = self.fuse(
            torch.cat([resize(self.head(e), low.shape[-2:]), self.skip(low)], 1)
        )
        return out


def smp_modules(card: dict[str, Any]) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module]:
    """Build DeepLabV3+ by a network's card and return its four modules.

    Returns:
        Backbone, pyramid, decoder, and the last 1x1 convolution.

    Raises:
        InputError: If the encoder is unknown or cannot have that output stride.
    """
    import segmentation_models_pytorch as smp

    encoder: str = card["encoder"]
    names = smp.encoders.get_encoder_names()
    if encoder not in names and not encoder.startswith("tu-"):
        near = difflib.get_close_matches(encoder, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "smp lists its encoders' names"
        raise InputError(f"unknown encoder {encoder!r}: {hint}")
    try:
        model = smp.DeepLabV3Plus(
            encoder,
            encoder_weights=None,
            encoder_output_stride=card["output_stride"],
            decoder_channels=card["width"],
            decoder_atrous_rates=RATES[card["output_stride"]],
            in_channels=card["bands"],
            classes=card["outputs"],
        )
    except (ValueError, RuntimeError, KeyError, NotImplementedError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"encoder {encoder} cannot be used at output stride {card['output_stride']}: {reason}"
        ) from error
    use_short_taps(model.decoder.aspp[0])
    return (
        model.encoder,
        model.decoder.aspp[0],
        _SmpDecoder(model.decoder),
        model.segmentation_head[0],
    )


def encoder_rows() -> list[dict[str, str]]:
    """Every encoder by name, and the layout it is for: what ``list backbones`` shows."""
    import segmentation_models_pytorch as smp

    paper = ("resnet18", "resnet34", "resnet50", "resnet101")
    names = sorted({*paper, *smp.encoders.get_encoder_names()})
    return [{"encoder": n, "layout": "smp, paper" if n in paper else "smp"} for n in names]
