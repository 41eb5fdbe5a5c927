"""What maps a batch of windows to class probabilities: a network, or an average over its views."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Predict", "predictor", "symmetric"]

#: Windows ``(n, c, t, t)``, normalised as in training, to probabilities ``(n, k, t, t)``.
Predict: TypeAlias = Callable[[Tensor], Tensor]


def predictor(network: nn.Module, *, autocast: torch.dtype | None = None) -> Predict:
    """Class probabilities of a segmentation network, which is set to eval mode.

    Args:
        network: Gives logits ``(n, k, h, w)`` of images ``(n, c, h, w)``.
        autocast: Lower precision to run it in, such as ``torch.bfloat16``; probabilities are
            float32 all the same.
    """
    network.eval()

    @torch.inference_mode()
    def predict(windows: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h w"]:
        with torch.autocast(windows.device.type, autocast, enabled=autocast is not None):
            logits: Tensor = network(windows)
        return logits.float().softmax(1)

    return predict


def symmetric(predict: Predict) -> Predict:
    """Average over the four quarter turns of a window and of its mirror image.

    The result turns and flips with its input exactly (up to rounding), at eight times the cost.
    """

    def average(windows: Float[Tensor, "n c t t"]) -> Float[Tensor, "n k t t"]:
        total: Tensor | None = None
        for turns in range(4):
            for flip in (False, True):
                view = windows.rot90(turns, (2, 3))
                seen = predict((view.flip(3) if flip else view).contiguous())
                back = (seen.flip(3) if flip else seen).rot90(-turns, (2, 3))
                total = back.clone() if total is None else total.add_(back)
        assert total is not None
        return total.div_(8)

    return average
