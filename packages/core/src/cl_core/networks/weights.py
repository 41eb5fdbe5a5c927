"""Weight files, read without running anything in them and matched to a network by stated rules."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl_core.errors import InputError

__all__ = [
    "WRAPPERS",
    "adapt_channels",
    "find_prefix",
    "load_weights",
    "mismatches",
    "read_weights",
]

WRAPPERS = ("module", "model", "backbone", "encoder", "encoder_q", "trunk", "_orig_mod")
"""Names under which training code files an encoder; prefixes made of them may be taken off."""

_PREFIX = re.compile(rf"(?:(?:{'|'.join(WRAPPERS)})\.)*")
# Where training checkpoints keep the weights, in this order: most, DINO, DirectCLR's last file.
_NESTED = ("state_dict", "model", "teacher", "backbone")
_SHOWN = 3  # mismatches named in a message


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Read a file of named tensors: safetensors, or a state dict that torch saved.

    Nothing in the file is executed: a pickle that holds more than tensors and plain values is
    refused. A training checkpoint gives the tensors of its ``state_dict``, ``model``,
    ``teacher`` or ``backbone`` entry.

    Args:
        path: The file, or a folder with a ``model.safetensors`` (a run directory, an export).

    Returns:
        Names and tensors as they lie in the file, on the CPU.

    Raises:
        InputError: If the file is missing, damaged, empty, or not such a file.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path = path / "model.safetensors"
    try:
        content = _read(path)
    except OSError as error:
        raise InputError(f"cannot read the weights {path}: {error.strerror or error}") from error
    for entry in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
            break
    state = dict(content) if isinstance(content, Mapping) else {}
    state = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    if not state:
        raise InputError(f"{path} holds no named tensors: give safetensors or a state dict")
    return state


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty: copy or save it again")
        try:
            return load_file(path)
        except SafetensorError as error:
            raise InputError(f"{path} is damaged or no safetensors file ({error})") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what is refused in a moment
            # A bag of options, which training scripts leave beside the weights: plain values.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is refused, nothing in it was run: it is damaged or holds more than tensors "
            "and plain values; save the state_dict alone, best as safetensors"
        ) from error
    except OSError:
        raise
    except Exception as error:  # a damaged archive raises whatever its unpickling meets
        raise InputError(f"{path} is damaged or no weight file: copy or save it again") from error
    return content


def adapt_channels(weight: Float[Tensor, "o r h w"], channels: int) -> Float[Tensor, "o c h w"]:
    r"""Give an RGB convolution another number of input channels by wrapping its filters around.

    For $k = 0, 1, \dots$ up to the larger of 3 and ``channels``, input channel $k \bmod c$ takes a
    share of RGB filter $k \bmod 3$; a filter taken $m$ times gives each a share of $1/m$. So one
    channel gets R + G + B; two get R + B and G; four get R/2, G, B and R/2. The filters of all
    channels sum to R + G + B for every $c$: an image that shows the same in each channel is
    answered as its grey RGB copy was, and the layers above see activations of their scale.

    For one channel and multiples of three this is timm's rule; for other numbers timm's own rule
    (cycle, then times $3/c$) keeps the sum only roughly.

    Args:
        weight: The RGB weights, $r = 3$.
        channels: $c \ge 1$.

    Raises:
        ValueError: If ``weight`` has other than three input channels or ``channels < 1``.
    """
    if weight.ndim != 4 or weight.shape[1] != 3:
        raise ValueError(f"the rule needs RGB filters (o, 3, h, w), got {tuple(weight.shape)}")
    if channels < 1:
        raise ValueError(f"channels must be at least 1, got {channels}")
    share = weight.new_zeros(channels, 3)
    for k in range(max(channels, 3)):
        share[k % channels, k % 3] += 1
    share /= share.sum(0)  # each RGB filter is handed out once
    return torch.einsum("orhw,cr->ochw", weight, share)


def find_prefix(state: Iterable[str], expected: Iterable[str]) -> str:
    """Return the chain of :data:`WRAPPERS` under which most of the ``expected`` keys lie.

    The shortest of those that tie; the empty string where the keys lie bare. Keys outside the
    prefix are other parts of a checkpoint: a projection head, a momentum encoder, a queue.
    """
    keys, expected = set(state), list(expected)
    candidates = {""}
    for key in keys:
        parts = _match(key).split(".")[:-1]
        candidates.update(".".join(parts[: end + 1]) + "." for end in range(len(parts)))
    hits = {prefix: sum(prefix + key in keys for key in expected) for prefix in candidates}
    return max(sorted(candidates), key=lambda prefix: (hits[prefix], -len(prefix)))


def load_weights(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: Path | str,
    name: str,
    ignore: Sequence[str] = (),
    rgb: Sequence[str] = (),
) -> None:
    """Fill ``module`` with ``state``; every weight must fit.

    In this order: numbers are replaced by the names of the module's children, where a network was
    saved as an ``nn.Sequential`` of its children; the prefix of :func:`find_prefix` is taken off
    and keys outside it are left alone; entries of the layers ``ignore`` (a classifier) are dropped;
    a convolution of ``rgb`` that has three input channels where the module has another number goes
    through :func:`adapt_channels`. What is left must have the module's names and shapes.

    Args:
        module: Changed in place, and only if everything fits.
        state: Names and tensors.
        source: The file they come from, for the message.
        name: What the module is called, for the message.
        ignore: Layers whose entries are dropped, as in ``("fc",)``.
        rgb: Layers that see the image first, as in ``("conv1",)``.

    Raises:
        InputError: If something does not fit, naming the first such keys and their shapes.
    """
    expected = module.state_dict()
    state = _named_by_order(module, state)
    prefix = find_prefix(state, expected)
    found = {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    for key in list(found):
        if key not in expected and any(key.startswith(f"{layer}.") for layer in ignore):
            del found[key]
    for key in (f"{layer}.weight" for layer in rgb):
        if key in found and key in expected:
            have, want = found[key], expected[key]
            if have.ndim == want.ndim == 4 and have.shape[1] == 3 != want.shape[1]:
                found[key] = adapt_channels(have, want.shape[1])
    problems = mismatches(expected, found)
    if problems:
        raise InputError(
            f"{source} does not fit {name}: {'; '.join(problems)}; give weights of this "
            "architecture, stem and number of channels"
        )
    module.load_state_dict(found)


def _named_by_order(module: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Undo ``nn.Sequential(*net.children())``, under which the children have numbers."""
    children = [name for name, _ in module.named_children()]
    if not children or any(name.isdecimal() for name in children):
        return state
    renamed = {}
    for key, value in state.items():
        prefix = _match(key)
        number, _, rest = key[len(prefix) :].partition(".")
        if number.isdecimal() and int(number) < len(children):
            key = f"{prefix}{children[int(number)]}.{rest}"
        renamed[key] = value
    return renamed


def _match(key: str) -> str:
    match = _PREFIX.match(key)
    return match.group() if match else ""


def mismatches(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Say in words how ``found`` differs from the names and shapes ``expected``, if it does."""
    # Files from before torch 0.4.1 lack this counter; torch fills it in.
    missing = [k for k in expected if k not in found and not k.endswith("num_batches_tracked")]
    unexpected = [key for key in found if key not in expected]
    other = [
        f"{key} is {_shape(found[key])}, expected {_shape(expected[key])}"
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    kinds = (
        (f"{len(missing)} of {len(expected)} weights are missing", missing),
        (f"{len(unexpected)} do not belong to it", unexpected),
        (f"{len(other)} have another shape", other),
    )
    return [
        f"{what} ({', '.join(cases[:_SHOWN])}{', ...' if len(cases) > _SHOWN else ''})"
        for what, cases in kinds
        if cases
    ]


def _shape(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "a number"
