import random

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset, Subset, TensorDataset

from cl_core.loader import EpochBatches, make_loader
from cl_core.seeding import RandomStream, derive_seed, seed_everything


class Draws(Dataset):
    """Every sample is its row and one draw from each generator an augmentation may use."""

    def __init__(self, rows, transform=None):
        self.rows, self.transform = rows, transform

    def __len__(self):
        return self.rows

    def __getitem__(self, row):
        own = self.transform() if self.transform else 0.0
        return row, np.random.rand(), random.random(), torch.rand(()).item(), own


class OwnGenerator:
    """Draws as albumentations does: from a generator of its own, deaf to the global seeds."""

    def __init__(self):
        self.generator = np.random.default_rng(0)

    def set_random_seed(self, seed):
        self.generator = np.random.default_rng(seed)

    def __call__(self):
        return self.generator.random()


class OwnState(OwnGenerator):
    """The same by MONAI's name, inside a composition that has none."""

    set_random_state = OwnGenerator.set_random_seed
    set_random_seed = None


class Steps:
    """As albumentations composes: a seed would start every step alike, generators are shared."""

    def __init__(self):
        self.set_random_seed(0)

    def set_random_seed(self, seed):
        self.steps = [np.random.default_rng(seed), np.random.default_rng(seed)]

    def set_random_state(self, random_generator, py_random):
        self.steps = [random_generator, py_random]

    def __call__(self):
        first, second = (step.random() for step in self.steps)
        assert first != second
        return first + second


class Composition:
    def __init__(self, *transforms):
        self.transforms = transforms

    def __call__(self):
        return sum(transform() for transform in self.transforms)


def loader(dataset, **options):
    return make_loader(
        dataset, **({"batch_size": 4, "shuffle": True, "seed": 0, "workers": 0} | options)
    )


def epoch(loader):
    """Rows of (row, numpy, random, torch, own) in the order they came."""
    return torch.cat([torch.stack([column.double() for column in batch], 1) for batch in loader])


@pytest.mark.parametrize("transform", [OwnGenerator(), Composition(OwnState()), Steps()])
def test_draws_differ_over_samples_workers_and_epochs(transform):
    reader = loader(Draws(16, transform), workers=2)
    both = torch.cat([epoch(reader), epoch(reader)])
    for draws in both[:, 1:].T:
        assert len(draws.unique()) == 32


def test_draws_are_the_same_for_any_number_of_workers_and_another_process_life():
    alone, two = (loader(Draws(10, OwnGenerator()), workers=workers) for workers in (0, 2))
    first, second = epoch(alone), epoch(alone)
    assert torch.equal(first, epoch(two))
    assert torch.equal(second, epoch(two))
    again = loader(Draws(10, OwnGenerator()))
    again.batch_sampler.set_epoch(1)
    assert torch.equal(second, epoch(again))


def test_another_seed_gives_other_orders_and_other_draws():
    one, other = epoch(loader(Draws(16), seed=1)), epoch(loader(Draws(16), seed=2))
    assert not torch.equal(one[:, 0], other[:, 0])
    assert not set(one[:, 1].tolist()) & set(other[:, 1].tolist())


def test_a_wrapped_data_set_is_reseeded_too():
    reader = loader(Subset(Draws(16, OwnGenerator()), range(8)), workers=2)
    assert len(torch.cat([epoch(reader), epoch(reader)])[:, 4].unique()) == 16


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_leaves_the_generators_of_the_model_alone(workers):
    def state():
        return torch.rand(()).item(), np.random.rand(), random.random()

    seed_everything(3)
    expected = state()
    seed_everything(3)
    epoch(loader(Draws(8), workers=workers))
    assert state() == expected


def test_without_shuffling_the_order_is_that_of_the_data():
    reader = loader(Draws(9), shuffle=False)
    assert epoch(reader)[:, 0].tolist() == list(range(9))
    assert epoch(reader)[:, 0].tolist() == list(range(9))


@settings(deadline=None, max_examples=60)
@example(rows=1, batch_size=1, world=3, shuffle=False, drop_last=False)
@given(
    rows=st.integers(1, 40),
    batch_size=st.integers(1, 9),
    world=st.integers(1, 4),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
)
def test_the_ranks_split_each_batch_of_one_process(rows, batch_size, world, shuffle, drop_last):
    options = {"shuffle": shuffle, "seed": 5, "drop_last": drop_last, "shard": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cl_core.loader.world_size", lambda: world)
        ranks = []
        for rank in range(world):
            patch.setattr("cl_core.loader.rank", lambda rank=rank: rank)
            sampler = EpochBatches(rows, batch_size=batch_size, **options)
            ranks.append([batch.rows for batch in sampler])
            assert len(ranks[-1]) == len(sampler)
    assert len({tuple(map(len, batches)) for batches in ranks}) == 1  # as gather_rows needs
    alone = EpochBatches(rows, batch_size=batch_size * world, **options)
    for joint, parts in zip(
        (batch.rows for batch in alone), zip(*ranks, strict=True), strict=False
    ):
        if len(joint) == batch_size * world:
            assert sorted(joint) == sorted(row for part in parts for row in part)


def test_a_lone_last_row_is_left_out_of_training_but_not_of_evaluation():
    assert [len(batch[0]) for batch in loader(Draws(9))] == [4, 4]
    assert [len(batch[0]) for batch in loader(Draws(9), shuffle=False)] == [4, 4, 1]
    assert [len(batch[0]) for batch in loader(Draws(10))] == [4, 4, 2]
    assert [len(batch[0]) for batch in loader(Draws(10), drop_last=True)] == [4, 4]
    assert [len(batch[0]) for batch in loader(Draws(1))] == [1]


def test_a_collation_of_ones_own_is_seeded_as_well():
    def mix(samples):
        return np.random.rand(), [sample[0] for sample in samples]

    one, two = (list(loader(Draws(8), collate=mix, workers=workers)) for workers in (0, 2))
    assert one == two
    assert one[0][0] != one[1][0]


def test_a_data_set_that_reads_batches_is_asked_for_batches():
    rows = Subset(TensorDataset(torch.arange(8)), [5, 3])
    (batch,) = loader(rows, shuffle=False)
    assert batch[0].tolist() == [5, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"workers": -1}, "workers must be 0 or more, got -1"),
        (
            {"batch_size": 6, "drop_last": True},
            r"batch_size 6 is larger than the data set \(5 rows\)",
        ),
    ],
)
def test_a_loader_without_a_batch_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        loader(Draws(5), **options)
    with pytest.raises(ValueError, match="the data set is empty"):
        loader(Draws(0))


def test_derived_seeds_are_far_apart():
    seeds = {derive_seed(a, b) for a in range(50) for b in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 2) != derive_seed(2, 1)


def test_a_random_stream_continues_where_it_stopped():
    seed_everything(1)
    outside = torch.rand(4)
    stream = RandomStream(7)
    with stream.running():
        whole = torch.rand(4)
    seed_everything(1)
    stream, halves, between = RandomStream(7), [], []
    for _ in range(2):
        with stream.running():
            halves.append(torch.rand(2))
        between.append(torch.rand(2))
    assert torch.equal(torch.cat(halves), whole)
    assert torch.equal(torch.cat(between), outside)


class Threads(Dataset):
    """Every sample is the number of threads it is made on."""

    def __len__(self):
        return 4

    def __getitem__(self, row):
        return torch.get_num_threads()


@pytest.mark.parametrize("workers", [0, 1])
def test_rows_are_read_on_one_thread_and_the_model_keeps_its_own(workers):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen = torch.cat(list(loader(Threads(), workers=workers)))
        assert seen.tolist() == [1] * 4
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
