r"""State that follows training without gradient: the averaged encoder and the queue of its outputs.

$$\theta_k \leftarrow m \theta_k + (1 - m) \theta_q$$

(MoCo, He et al. 2020, Eq. 2; BYOL, Grill et al. 2020, lets $m$ rise to 1 along a cosine.) Both are
modules whose whole state is persistent buffers or parameters, so that a checkpoint holds it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from cl_core.distributed import gather_rows

__all__ = ["FeatureQueue", "MomentumEncoder", "momentum_at"]


def momentum_at(step: int, total: int, start: float) -> float:
    r"""Return $1 - (1 - m_0) (\cos(\pi t / T) + 1) / 2$, which rises from $m_0$ to 1 (BYOL).

    Args:
        step: $t \ge 0$; past the end the momentum stays 1.
        total: $T \ge 1$.
        start: $m_0$, from 0 to 1.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> [round(momentum_at(t, 10, 0.9), 3) for t in (0, 5, 10)]
        [0.9, 0.95, 1.0]
    """
    if step < 0 or total < 1:
        raise ValueError(f"need step >= 0 and total >= 1, got step {step} of {total}")
    _check_momentum(start)
    return 1 - (1 - start) * (math.cos(math.pi * min(step, total) / total) + 1) / 2


def _check_momentum(momentum: float) -> None:
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be from 0 to 1, got {momentum}")


class MomentumEncoder(nn.Module):
    """The exponential moving average of a module's parameters over the steps of training.

    It starts as a copy, computes without gradient, and none of its parameters require one. Calling
    it runs the copy; ``train()`` and ``eval()`` rule its batch norms as usual. Where the averaged
    module moves to another device or type, move this one along.

    The copy computes in the encoder's type. The average of what is narrower than float32 is kept
    in float32 besides (child ``wide``): with a momentum of 0.999 a step is smaller than what
    bfloat16 can tell apart, and the copy would never move.

    Args:
        encoder: The module to follow. It is copied, not kept.
        momentum: Weight of the past, from 0 to 1; the start where ``total_steps`` is given.
        total_steps: Updates after which the momentum has risen to 1 along a cosine; by default it
            stays constant.
        buffers: What becomes of buffers, such as the running statistics of batch norm: ``"own"``
            leaves them to this copy's own forward passes (MoCo, HCSC); ``"copy"`` takes the
            encoder's; ``"average"`` averages them like parameters, and copies integers.

    Raises:
        ValueError: If ``momentum``, ``total_steps`` or ``buffers`` are out of their range.
    """

    steps: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        momentum: float = 0.999,
        *,
        total_steps: int | None = None,
        buffers: Literal["own", "copy", "average"] = "own",
    ) -> None:
        super().__init__()
        _check_momentum(momentum)
        if total_steps is not None and total_steps < 1:
            raise ValueError(f"total_steps must be at least 1, got {total_steps}")
        if buffers not in ("own", "copy", "average"):
            raise ValueError(f"buffers must be 'own', 'copy' or 'average', got {buffers!r}")
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.wide = nn.Module()  # the averages in float32 of what is narrower, by name
        self.momentum = momentum
        self.total_steps = total_steps
        self.buffers_policy = buffers
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._set_wide({})
        self._steps = 0  # mirrors `steps`, which may live on a device that is slow to ask

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the averaged module, without gradient."""
        return self.encoder(*args, **kwargs)

    @torch.no_grad()
    def update(self, encoder: nn.Module) -> float:
        """Move one step towards ``encoder``; call it once per step of the optimiser.

        Args:
            encoder: The module followed, with the same parameters and buffers as at the start.

        Returns:
            The momentum used.

        Raises:
            ValueError: If names or shapes of parameters or buffers differ from the copy's.
        """
        m = self.momentum
        if self.total_steps is not None:
            m = momentum_at(self._steps, self.total_steps, self.momentum)
        own_parameters: dict[str, Tensor] = dict(self.encoder.named_parameters())
        names = [*own_parameters]
        mine, theirs = _matched(own_parameters, dict(encoder.named_parameters()))
        own_buffers = dict(self.encoder.named_buffers())
        mine_b, theirs_b = _matched(own_buffers, dict(encoder.named_buffers()))
        if self.buffers_policy != "own":
            for name, own, new in zip(own_buffers, mine_b, theirs_b, strict=True):
                if self.buffers_policy == "average" and own.is_floating_point():
                    names.append(name)
                    mine.append(own)
                    theirs.append(new)
                else:
                    own.copy_(new)
        wide = self._wide()
        _average([wide.get(n, own) for n, own in zip(names, mine, strict=True)], theirs, m)
        for name, own in zip(names, mine, strict=True):
            if name in wide:
                own.copy_(wide[name])
        self._steps += 1
        self.steps.fill_(self._steps)
        return m

    def _averaged(self) -> dict[str, Tensor]:
        """Return what is averaged, by name."""
        averaged: dict[str, Tensor] = dict(self.encoder.named_parameters())
        if self.buffers_policy == "average":
            buffers = self.encoder.named_buffers()
            averaged |= {name: own for name, own in buffers if own.is_floating_point()}
        return averaged

    def _wide(self) -> dict[str, Tensor]:
        return {name.replace("/", "."): x for name, x in self.wide.named_buffers()}

    def _set_wide(self, values: dict[str, Tensor]) -> None:
        """Keep these averages where they are wider than the copy, else put them into the copy."""
        self.wide = nn.Module()
        for name, own in self._averaged().items():
            value = values.get(name, own).detach()
            if own.is_floating_point() and own.dtype.itemsize < 4:
                value = value.to(own.device, torch.float32, copy=True)
                self.wide.register_buffer(name.replace(".", "/"), value)  # no dots in its name
            elif name in values:
                own.data.copy_(value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MomentumEncoder:
        """Move or convert the copy; the average keeps its digits."""
        kept = self._wide()
        before = {name: own.detach() for name, own in self._averaged().items()}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, own in self._averaged().items():
            if own.dtype.itemsize < before[name].dtype.itemsize:
                kept.setdefault(name, before[name])
        self._set_wide(kept)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        state, prefix = args[0], args[1]
        for name in self._wide():  # states of before there were such averages
            key = f"{prefix}wide.{name.replace('.', '/')}"
            if key not in state and f"{prefix}encoder.{name}" in state:
                state[key] = state[f"{prefix}encoder.{name}"]
        super()._load_from_state_dict(*args, **kwargs)
        self._steps = int(self.steps)


def _matched(
    mine: dict[str, Tensor], theirs: dict[str, Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    if {n: t.shape for n, t in mine.items()} != {n: t.shape for n, t in theirs.items()}:
        odd = sorted(
            name
            for name in mine.keys() | theirs.keys()
            if name not in mine or name not in theirs or mine[name].shape != theirs[name].shape
        )
        raise ValueError(
            f"the encoder no longer matches its momentum copy in {', '.join(odd[:5])}: build a new "
            "MomentumEncoder after changing the architecture"
        )
    return list(mine.values()), [theirs[name] for name in mine]


def _average(mine: list[Tensor], theirs: list[Tensor], momentum: float) -> None:
    """Average lists of tensors in place, in a few fused operations per device and type."""
    groups: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}
    for own, new in zip(mine, theirs, strict=True):
        owns, news = groups.setdefault((own.device, own.dtype), ([], []))
        owns.append(own)
        news.append(new.to(own.device, own.dtype))
    for owns, news in groups.values():
        torch._foreach_lerp_(owns, news, 1 - momentum)


class FeatureQueue(nn.Module):
    """The last ``size`` rows that went in, first in first out (MoCo's dictionary).

    Slot ``pointer`` holds the oldest row and takes the next; rows of a batch lie in their order in
    consecutive slots, past the last slot from 0 on. At the start the queue is full of random
    directions with id -1.

    Args:
        size: Rows held.
        dim: Features of a row.
        seed: Of the random directions; use the same on every rank.

    Attributes:
        features: Rows ``(size, dim)`` by slot, of unit length if what went in was.
        ids: The ids that came with them ``(size,)``, int64, -1 where none did.
        pointer: Slot of the oldest row, a scalar.

    Raises:
        ValueError: If ``size`` or ``dim`` is not positive.
    """

    features: Tensor
    ids: Tensor
    pointer: Tensor

    def __init__(self, size: int, dim: int, *, seed: int = 0) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise ValueError(f"size and dim must be at least 1, got {size} and {dim}")
        generator = torch.Generator().manual_seed(seed)
        rows = F.normalize(torch.randn(size, dim, generator=generator), dim=1)
        self.register_buffer("features", rows)
        self.register_buffer("ids", torch.full((size,), -1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.features)

    @torch.no_grad()
    def enqueue(self, rows: Float[Tensor, "n dim"], ids: Int[Tensor, " n"] | None = None) -> None:
        """Replace the oldest rows by those of all ranks, in the order of the ranks.

        Args:
            rows: This rank's rows, as many on every rank; gradients are dropped. They are stored
                as they are: scale them to unit length first.
            ids: What to remember of each, such as its index in the data set, -1 for nothing.

        Raises:
            ValueError: If shapes do not fit, if the ranks bring different numbers of rows, or if
                all ranks' rows together exceed the queue.
        """
        size, dim = self.features.shape
        if rows.ndim != 2 or rows.shape[1] != dim:
            raise ValueError(f"rows must be (n, {dim}), got {tuple(rows.shape)}")
        if ids is not None and ids.shape != rows.shape[:1]:
            raise ValueError(f"need one id per row, got {tuple(ids.shape)} for {len(rows)} rows")
        if ids is None:
            ids = torch.full((len(rows),), -1, device=rows.device)
        rows = gather_rows(rows.contiguous(), grad=False)
        ids = gather_rows(ids.contiguous(), grad=False)
        n = len(rows)
        if n > size:
            raise ValueError(
                f"a batch of {n} rows (over all ranks) does not fit a queue of {size}: enlarge the "
                "queue or use smaller batches"
            )
        slots = (self.pointer + torch.arange(n, device=self.pointer.device)) % size
        self.features[slots] = rows.to(self.features)
        self.ids[slots] = ids.to(self.ids)
        self.pointer.add_(n).remainder_(size)
