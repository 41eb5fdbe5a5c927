"""Batches are prepared beside the training where that is safe, and are the same anyhow."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from cl_core.images import open_images, training_loader
from cl_core.images.loaders import spare_workers
from cl_core.orders import Balanced
from cl_core.transforms import crop_and_flip


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(12):
        path = tmp_path / ("a", "b")[k > 8] / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return open_images(tmp_path)


def stand_in(monkeypatch, *, processors: int = 4, room: int = 2**30) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)), raising=False)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=room, f_frsize=1))
    monkeypatch.setattr("cl_core.images.loaders.get_start_method", lambda: "fork")


def test_a_process_is_spared_where_there_is_room_for_one(images, monkeypatch):
    dataset = images.dataset.views(2, crop_and_flip(8))
    batch = 2 * 3 * 8 * 8 * 4 * 4  # views x values x bytes x rows
    stand_in(monkeypatch, room=3 * batch + 1)
    before = torch.get_rng_state()
    assert spare_workers(dataset, 4) == 1
    assert torch.equal(torch.get_rng_state(), before)  # looking at a sample draws nothing
    stand_in(monkeypatch, room=3 * batch)
    assert spare_workers(dataset, 4) == 0
    stand_in(monkeypatch, processors=1)
    assert spare_workers(dataset, 4) == 0
    stand_in(monkeypatch)
    assert spare_workers([1, 2], 4) == 0
    monkeypatch.setattr("cl_core.images.loaders.get_start_method", lambda: "spawn")
    assert spare_workers(dataset, 4) == 0


def test_the_batches_are_those_of_the_main_process(images, monkeypatch):
    stand_in(monkeypatch)

    def two_epochs(workers):
        reader = training_loader(
            images, [crop_and_flip(8)] * 2, batch_size=4, workers=workers, seed=1
        )
        assert reader.num_workers == (1 if workers is None else workers)
        return [torch.stack([*batch.views]) for _ in range(2) for batch in reader]

    for one, other in zip(two_epochs(None), two_epochs(0), strict=True):
        assert torch.equal(one, other)


def test_an_order_decides_the_batches(images):
    reader = training_loader(
        images,
        [crop_and_flip(8)],
        batch_size=4,
        workers=0,
        seed=0,
        order=Balanced(images.table.labels, batches=6),
    )
    labels = torch.cat([batch.label for batch in reader])
    assert torch.bincount(labels).tolist() == [12, 12]
