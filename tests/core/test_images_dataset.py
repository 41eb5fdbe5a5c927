from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cl_core.errors import InputError
from cl_core.images import (
    DecodeCache,
    ImageDataset,
    Sample,
    channel_statistics,
    list_images,
    read_image,
)
from cl_core.loader import make_loader
from cl_core.transforms import CenterCrop, ColorJitter, simclr, to_unit_range


@pytest.fixture
def folder(tmp_path):
    """Eight images of two classes; each is of one grey that tells its row."""
    for k in range(8):
        path = tmp_path / ("oat", "rye")[k // 4] / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((40, 48, 3), 10 * k, np.uint8)).save(path)
    return tmp_path


def shade(sample: Sample) -> int:
    return int(sample.views[0].flatten()[0]) // 10


def test_a_row_is_its_image_label_and_place(folder):
    dataset = ImageDataset(list_images(folder))
    assert len(dataset) == 8
    sample = dataset[5]
    assert torch.equal(sample.views[0], read_image(dataset.table.files[5]))
    assert (len(sample.views), sample.label, sample.row) == (1, 1, 5)
    assert dataset[-1].row == 7
    with pytest.raises(IndexError):
        dataset[8]


def test_views_are_drawn_apart_from_one_decoding(folder):
    torch.manual_seed(0)
    dataset = ImageDataset(list_images(folder)).views(3, ColorJitter(brightness=0.5))
    views, label, row = dataset[3]
    assert len({float(view.mean()) for view in views}) == 3
    assert (label, row) == (0, 3)


def test_each_view_can_have_its_own_transform(folder):
    base = ImageDataset(list_images(folder))
    dataset = base.views(2, [to_unit_range, lambda image: to_unit_range(image) * 2])
    one, two = dataset[4].views
    assert torch.equal(two, one * 2)
    assert base[4].views[0].dtype == torch.uint8  # the first dataset is as it was
    with pytest.raises(ValueError, match="3 views need a transform or 3, got 2"):
        base.views(3, [to_unit_range, to_unit_range])


def test_images_without_labels_work(folder):
    dataset = ImageDataset(list_images(folder / "oat")).views(2, simclr(32))
    assert dataset[0].label == -1


def test_a_batch_has_the_fields_of_a_sample(folder):
    dataset = ImageDataset(list_images(folder)).views(2, simclr(32))
    batch = next(iter(make_loader(dataset, batch_size=8, shuffle=True, workers=0, seed=1)))
    assert isinstance(batch, Sample)
    assert [tuple(view.shape) for view in batch.views] == [(8, 3, 32, 32)] * 2
    assert sorted(batch.row.tolist()) == list(range(8))
    assert torch.equal(batch.label, batch.row // 4)


def test_workers_and_epochs_draw_different_views_and_a_seed_repeats_them(folder):
    table = list_images(folder).select([3] * 8)  # the same image, so that only the draws differ
    dataset = ImageDataset(table).views(1, ColorJitter(brightness=0.9))

    def two_epochs(workers: int) -> list[float]:
        loader = make_loader(dataset, batch_size=2, shuffle=False, workers=workers, seed=3)
        return [float(view.max()) for _ in range(2) for batch in loader for view in batch.views[0]]

    drawn = two_epochs(workers=2)
    assert len(set(drawn)) == 16
    assert two_epochs(workers=0) == drawn


def test_an_unreadable_image_stops_with_its_name(folder):
    (folder / "oat/2.png").write_bytes(b"")
    dataset = ImageDataset(list_images(folder))
    assert dataset[1].row == 1
    with pytest.raises(
        InputError, match=r"oat/2\.png: cannot be read as an image .the file is empty."
    ):
        dataset[2]
    with pytest.raises(InputError, match=r"oat/2\.png: cannot be read"):
        dataset.checked()


def test_an_unreadable_image_is_an_input_error_from_a_worker_too(folder):
    (folder / "oat/2.png").write_bytes(b"")
    dataset = ImageDataset(list_images(folder))
    loader = make_loader(dataset, batch_size=4, shuffle=False, workers=1, seed=0)
    with pytest.raises(InputError, match=r"oat/2\.png: cannot be read as an image"):
        list(loader)


def test_skipping_gives_the_next_readable_row_and_tells_from_every_worker(folder):
    (folder / "oat/2.png").write_bytes(b"")
    (folder / "oat/3.png").write_bytes(b"no image")
    (folder / "rye/7.png").write_bytes(b"")
    dataset = ImageDataset(list_images(folder), on_error="skip")
    assert dataset.unreadable == []
    loader = make_loader(dataset, batch_size=4, shuffle=False, workers=2, seed=0)
    rows = torch.cat([batch.row for batch in loader]).tolist()
    assert rows == [0, 1, 4, 4, 4, 5, 6, 0]
    assert [shade(dataset[k]) for k in range(8)] == rows
    assert dataset[2].label == 1  # the label goes with the image
    assert [error.path[-5:] for error in dataset.unreadable] == ["2.png", "3.png", "7.png"]


def test_checking_drops_unreadable_rows_and_tells(folder):
    (folder / "oat/2.png").write_bytes(b"")
    dataset = ImageDataset(list_images(folder), on_error="skip").views(2, to_unit_range)
    checked = dataset.checked()
    assert len(checked) == 7
    assert [checked[k].label for k in range(7)] == [0, 0, 0, 1, 1, 1, 1]
    assert len(checked[0].views) == 2
    assert "1 unreadable images left out" in checked.table.notes[-1]
    assert "2.png (the file is empty)" in checked.table.notes[-1]


def test_nothing_readable_at_all_is_an_error(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    dataset = ImageDataset(list_images(folder), on_error="skip")
    for attempt in (lambda: dataset[0], dataset.checked):
        with pytest.raises(InputError, match="none of its 8 images can be used"):
            attempt()


def test_an_image_smaller_than_the_crop_is_named(folder):
    Image.new("RGB", (20, 48)).save(folder / "oat/2.png")
    dataset = ImageDataset(list_images(folder)).views(1, CenterCrop(32))
    assert dataset[1].views[0].shape == (3, 32, 32)
    with pytest.raises(InputError, match=r"oat/2\.png: the image is 20 x 48 pixels, smaller than"):
        dataset[2]


def test_the_cache_is_used_and_must_have_the_datasets_options(folder, tmp_path_factory):
    table = list_images(folder)
    cache = DecodeCache.of(tmp_path_factory.mktemp("cache") / "c", table)
    dataset = ImageDataset(table.select([6]), cache=cache)
    (folder / "rye/6.png").unlink()  # only the cache can give it now
    assert shade(dataset[0]) == 6
    with pytest.raises(ValueError, match="make the cache with the dataset's options"):
        ImageDataset(table, channels=1, cache=cache)


def test_statistics_are_those_of_all_pixels(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (6 + k, 9, 3), dtype=np.uint8) for k in range(4)]
    for k, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{k}.png")
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    mean, std = channel_statistics(ImageDataset(list_images(tmp_path)))
    assert np.allclose(mean, pixels.mean(0), atol=1e-9)
    assert np.allclose(std, pixels.std(0), atol=1e-9)


def test_a_constant_channel_has_no_statistics(folder):
    with pytest.raises(ValueError, match="channel 0 is constant"):
        channel_statistics(ImageDataset(list_images(folder).select([3])))
