from __future__ import annotations

import sys
from inspect import unwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from two_ranks import run_two_ranks

from cl_core.distributed import rank
from cl_core.networks.momentum import FeatureQueue, MomentumEncoder, momentum_at

GOLDEN = Path(__file__).parents[1] / "golden" / "hcsc.npz"
CASES = ("single", "multi", "nosel")


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}


def net(seed: int, norm: bool = True) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Linear(5, 4), nn.BatchNorm1d(4)] if norm else [nn.Linear(5, 4)]
    return nn.Sequential(*layers)


# --- momentum encoder


@pytest.mark.parametrize("case", CASES)
def test_average_equals_the_official_code(golden, case):
    values = {k.partition("__")[2]: v for k, v in golden.items() if k.startswith(case)}
    key, query = (nn.Linear(*reversed(values["Wk_before"].shape)) for _ in range(2))
    for layer, letter in ((key, "k"), (query, "q")):
        layer.load_state_dict(
            {"weight": values[f"W{letter}_before"], "bias": values[f"b{letter}_before"]}
        )
    encoder = MomentumEncoder(key, float(values["m"]))
    encoder.update(query)
    torch.testing.assert_close(encoder.encoder.weight, values["Wk_after"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(encoder.encoder.bias, values["bk_after"], rtol=1e-5, atol=1e-5)
    moved = (values["Wk_after"] - values["Wk_before"]).abs().max()
    assert moved > 1e-4  # the tolerance above would catch a missing update
    with torch.no_grad():
        k = nn.functional.normalize(encoder(values["im_1"]), dim=1)
    torch.testing.assert_close(k, values["k"], rtol=1e-5, atol=1e-5)


def test_many_updates_equal_the_loop():
    query = net(0).double()
    encoder = MomentumEncoder(query, 0.9)
    reference = [p.detach().clone() for p in query.parameters()]
    g = torch.Generator().manual_seed(1)
    for _ in range(5):
        with torch.no_grad():
            for p in query.parameters():
                p.add_(torch.randn(p.shape, generator=g, dtype=p.dtype))
        assert encoder.update(query) == 0.9
        reference = [0.9 * r + 0.1 * p for r, p in zip(reference, query.parameters(), strict=True)]
    for own, expected in zip(encoder.encoder.parameters(), reference, strict=True):
        torch.testing.assert_close(own, expected.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrow_encoder_is_averaged_in_float32(dtype):
    query = net(0).to(dtype)
    encoder = MomentumEncoder(query, 0.999, buffers="average")
    start = query[0].weight.detach().float().clone()
    with torch.no_grad():
        query[0].weight.mul_(1.25)
        query[1].running_mean.fill_(8.0)
    for _ in range(1000):
        encoder.update(query)
    left = 0.999**1000
    expected = left * start + (1 - left) * query[0].weight.detach().float()
    average = encoder.encoder[0].weight
    assert average.dtype == dtype
    torch.testing.assert_close(
        encoder.state_dict()["wide.0/weight"], expected, rtol=1e-4, atol=1e-6
    )
    assert torch.equal(average, encoder.state_dict()["wide.0/weight"].to(dtype))
    assert encoder.encoder[1].running_mean.float().mean() == pytest.approx(8 * (1 - left), rel=0.01)
    assert encoder(torch.randn(6, 5, dtype=dtype)).dtype == dtype


def test_a_narrow_average_goes_on_exactly_from_its_state():
    query, other = net(0).bfloat16(), net(1).bfloat16()
    whole, first = MomentumEncoder(query, 0.99), MomentumEncoder(query, 0.99)
    for _ in range(20):
        whole.update(other)
    for _ in range(10):
        first.update(other)
    second = MomentumEncoder(net(2).bfloat16(), 0.99)
    second.load_state_dict(first.state_dict())
    for _ in range(10):
        second.update(other)
    assert_same_state(whole, second)


def test_an_average_converted_on_the_way_keeps_its_digits():
    query = net(0)
    reference = MomentumEncoder(query, 0.99)
    converted = MomentumEncoder(query, 0.99).bfloat16()
    assert converted.encoder[0].weight.dtype == torch.bfloat16
    assert torch.equal(converted.state_dict()["wide.0/weight"], query[0].weight)
    other = net(1).bfloat16()
    for encoder in (reference, converted):
        for _ in range(10):
            encoder.update(other)
    back = converted.float()
    assert "wide.0/weight" not in back.state_dict()
    assert torch.equal(back.encoder[0].weight, reference.encoder[0].weight)


def test_a_narrow_state_of_before_there_were_wide_averages_is_read():
    old = MomentumEncoder(net(0).bfloat16())
    state = {k: v for k, v in old.state_dict().items() if not k.startswith("wide.")}
    new = MomentumEncoder(net(1).bfloat16())
    new.load_state_dict(state)
    assert_same_state(old, new)


def assert_same_state(a: MomentumEncoder, b: MomentumEncoder) -> None:
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_it_starts_as_a_copy_and_follows_at_momentum_zero_and_stays_at_one():
    first, second = net(0), net(1)
    for momentum, expected in ((0.0, second), (1.0, first)):
        encoder = MomentumEncoder(first, momentum)
        assert torch.equal(encoder.encoder[0].weight, first[0].weight)
        assert encoder.encoder[0].weight is not first[0].weight
        encoder.update(second)
        assert torch.equal(encoder.encoder[0].weight, expected[0].weight)


def test_no_gradient_reaches_it_or_passes_through_it():
    encoder = MomentumEncoder(net(0))
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert not encoder(x).requires_grad
    assert not any(p.requires_grad for p in encoder.parameters())
    assert all(p.requires_grad for p in net(0).parameters())


def test_the_followed_module_keeps_its_gradients():
    query = net(0)
    MomentumEncoder(query).update(query)
    assert all(p.requires_grad for p in query.parameters())


@pytest.mark.parametrize("policy", ["own", "copy", "average"])
def test_buffers_follow_their_policy(policy):
    query = net(0)
    encoder = MomentumEncoder(query, 0.75, buffers=policy)
    query[1].running_mean.fill_(8.0)
    query[1].num_batches_tracked.fill_(7)
    encoder.update(query)
    expected = {"own": (0.0, 0), "copy": (8.0, 7), "average": (2.0, 7)}[policy]
    norm = encoder.encoder[1]
    assert norm.running_mean.tolist() == [expected[0]] * 4
    assert norm.num_batches_tracked.item() == expected[1]


def test_own_buffers_come_from_its_own_forward_passes():
    encoder = MomentumEncoder(net(0))
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0)) + 3
    encoder(x)
    assert encoder.encoder[1].running_mean.abs().min() > 0
    before = encoder.encoder[1].running_mean.clone()
    encoder.eval()(x)
    assert torch.equal(encoder.encoder[1].running_mean, before)


def test_momentum_rises_to_one_along_a_cosine():
    values = [momentum_at(t, 100, 0.99) for t in range(101)]
    assert values[0] == pytest.approx(0.99, abs=1e-15)
    assert values[50] == pytest.approx(0.995, abs=1e-15)
    assert values[100] == momentum_at(500, 100, 0.99) == 1.0
    assert values == sorted(values)
    encoder = MomentumEncoder(net(0), 0.99, total_steps=100)
    used = [encoder.update(net(1)) for _ in range(3)]
    assert used == values[:3]


def test_resumed_equals_uninterrupted(tmp_path):
    def steps(encoder, start, stop):
        for step in range(start, stop):
            encoder.update(net(step))

    whole = MomentumEncoder(net(99), 0.5, total_steps=6)
    steps(whole, 0, 5)
    half = MomentumEncoder(net(99), 0.5, total_steps=6)
    steps(half, 0, 2)
    torch.save(half.state_dict(), tmp_path / "half.pt")
    resumed = MomentumEncoder(net(98), 0.5, total_steps=6)
    resumed.load_state_dict(torch.load(tmp_path / "half.pt", weights_only=True))
    steps(resumed, 2, 5)
    assert resumed.steps.item() == 5
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_bad_settings_are_refused(monkeypatch):
    # Past the shape checker, if the test run has one: the classes themselves must refuse.
    monkeypatch.setattr(MomentumEncoder, "__init__", unwrap(MomentumEncoder.__init__))
    with pytest.raises(ValueError, match=r"momentum must be from 0 to 1, got 1\.5"):
        MomentumEncoder(net(0), 1.5)
    with pytest.raises(ValueError, match="buffers must be 'own', 'copy' or 'average', got 'x'"):
        MomentumEncoder(net(0), buffers="x")
    with pytest.raises(ValueError, match="total_steps must be at least 1, got 0"):
        MomentumEncoder(net(0), total_steps=0)
    with pytest.raises(ValueError, match="step -1 of 5"):
        momentum_at(-1, 5, 0.9)
    encoder = MomentumEncoder(net(0))
    with pytest.raises(ValueError, match=r"no longer matches .* 1\.bias, 1\.weight"):
        encoder.update(net(0, norm=False))
    assert encoder.steps.item() == 0


# --- queue


@pytest.mark.parametrize("case", CASES)
def test_queue_equals_the_official_code(golden, case):
    values = {k.partition("__")[2]: v for k, v in golden.items() if k.startswith(case)}
    queue = FeatureQueue(values["queue_before"].shape[1], values["queue_before"].shape[0])
    queue.features.copy_(values["queue_before"].T)
    queue.ids.copy_(torch.arange(len(queue)))  # what the official run started from
    queue.pointer.fill_(int(values["ptr_before"]))
    queue.enqueue(values["k"], values["index"])
    torch.testing.assert_close(queue.features.T, values["queue_after"], rtol=1e-5, atol=1e-5)
    assert queue.pointer.item() == int(values["ptr_after"])
    assert torch.equal(queue.ids, values["queue_index_after"])


def test_a_new_queue_holds_unit_rows_without_ids():
    queue = FeatureQueue(50, 8, seed=3)
    torch.testing.assert_close(queue.features.norm(dim=1), torch.ones(50), rtol=0, atol=1e-6)
    assert (queue.ids == -1).all()
    assert torch.equal(queue.features, FeatureQueue(50, 8, seed=3).features)
    assert not torch.equal(queue.features, FeatureQueue(50, 8, seed=4).features)
    assert (queue.features @ queue.features.T).fill_diagonal_(0).abs().max() < 1 - 1e-3


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), st.lists(st.integers(0, 12), max_size=8))
def test_it_holds_the_last_rows_in_order_whatever_the_batches(size, batches):
    queue = FeatureQueue(size, 1)
    start = list(zip(queue.features.flatten().tolist(), queue.ids.tolist(), strict=True))
    history = start
    number = 0
    for n in batches:
        if n > size:
            continue
        ids = torch.arange(number, number + n)
        queue.enqueue(ids[:, None].float(), ids)
        history = history + [(float(i), i) for i in ids.tolist()]
        number += n
    oldest_first = (torch.arange(size) + queue.pointer) % size
    held = zip(
        queue.features[oldest_first, 0].tolist(), queue.ids[oldest_first].tolist(), strict=True
    )
    assert list(held) == history[-size:]
    assert queue.pointer.item() == number % size


def test_rows_without_ids_clear_the_old_ids():
    queue = FeatureQueue(4, 2)
    queue.enqueue(torch.ones(4, 2), torch.arange(4))
    queue.enqueue(torch.ones(3, 2))
    assert queue.ids.tolist() == [-1, -1, -1, 3]


def test_gradients_do_not_enter_the_queue():
    queue = FeatureQueue(4, 2)
    queue.enqueue(torch.ones(3, 2, requires_grad=True))
    assert not queue.features.requires_grad


def test_the_queue_survives_a_checkpoint(tmp_path):
    queue = FeatureQueue(5, 2)
    queue.enqueue(torch.ones(3, 2), torch.arange(3))
    torch.save(queue.state_dict(), tmp_path / "queue.pt")
    resumed = FeatureQueue(5, 2, seed=9)
    resumed.load_state_dict(torch.load(tmp_path / "queue.pt", weights_only=True))
    for q in (queue, resumed):
        q.enqueue(torch.full((4, 2), 2.0), torch.arange(10, 14))
    assert torch.equal(queue.features, resumed.features)
    assert queue.ids.tolist() == resumed.ids.tolist() == [12, 13, 2, 10, 11]
    assert resumed.pointer.item() == 2


def test_bad_batches_are_refused_and_change_nothing(monkeypatch):
    monkeypatch.setattr(FeatureQueue, "enqueue", unwrap(FeatureQueue.enqueue))
    queue = FeatureQueue(4, 2)
    before = queue.features.clone()
    with pytest.raises(ValueError, match=r"batch of 5 rows \(over all ranks\) .* queue of 4"):
        queue.enqueue(torch.ones(5, 2))
    with pytest.raises(ValueError, match=r"rows must be \(n, 2\), got \(3, 3\)"):
        queue.enqueue(torch.ones(3, 3))
    with pytest.raises(ValueError, match=r"one id per row, got \(2,\) for 3 rows"):
        queue.enqueue(torch.ones(3, 2), torch.arange(2))
    with pytest.raises(ValueError, match="size and dim must be at least 1"):
        FeatureQueue(0, 2)
    assert torch.equal(queue.features, before)
    assert queue.pointer.item() == 0


def run_rank(folder: Path) -> None:
    dist.init_process_group("gloo")
    queue = FeatureQueue(7, 1)
    for batch in range(3):
        ids = torch.arange(2) + 4 * batch + 2 * rank()
        queue.enqueue(ids[:, None].float(), ids)
    with pytest.raises(ValueError, match=r"equally many rows on every rank, got \[1, 2\]"):
        queue.enqueue(torch.zeros(1 + rank(), 1))
    torch.save(queue.state_dict(), folder / f"{rank()}.pt")
    dist.destroy_process_group()


def test_two_ranks_hold_the_same_queue_as_one_process_with_all_rows(tmp_path):
    states = run_two_ranks(__file__, tmp_path)
    alone = FeatureQueue(7, 1)
    for batch in range(3):
        ids = torch.arange(4) + 4 * batch
        alone.enqueue(ids[:, None].float(), ids)
    for state in states:
        for name, value in alone.state_dict().items():
            assert torch.equal(value, state[name]), name


if __name__ == "__main__":  # one of the ranks that torchrun starts
    run_rank(Path(sys.argv[1]))
