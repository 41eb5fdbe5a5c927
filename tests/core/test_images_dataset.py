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
from cl_core.transforms import (
    CenterCrop,
    ColorJitter,
    RandomResizedCrop,
    crop_and_flip,
    to_unit_range,
)


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
    views, label, row, masks = dataset[3]
    assert len({float(view.mean()) for view in views}) == 3
    assert (label, row, masks) == (0, 3, ())


def test_each_view_can_have_its_own_transform(folder):
    base = ImageDataset(list_images(folder))
    dataset = base.views(2, [to_unit_range, lambda image: to_unit_range(image) * 2])
    one, two = dataset[4].views
    assert torch.equal(two, one * 2)
    assert base[4].views[0].dtype == torch.uint8  # the first dataset is as it was
    with pytest.raises(ValueError, match="3 views need a transform or 3, got 2"):
        base.views(3, [to_unit_range, to_unit_range])


def test_images_without_labels_work(folder):
    dataset = ImageDataset(list_images(folder / "oat")).views(2, crop_and_flip(32))
    assert dataset[0].label == -1


def test_a_batch_has_the_fields_of_a_sample(folder):
    dataset = ImageDataset(list_images(folder)).views(2, crop_and_flip(32))
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


def brightest(row: int, image: torch.Tensor) -> torch.Tensor:
    return image[0] > 35


def joint(image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return to_unit_range(image).flip(-1), mask.flip(-1)


def test_a_function_gives_masks_that_follow_the_views(folder):
    base = ImageDataset(list_images(folder), masks=brightest)
    sample = base[4]
    assert torch.equal(sample.masks[0], torch.ones(40, 48, dtype=torch.bool))
    torch.manual_seed(0)
    dataset = base.views(2, RandomResizedCrop(16, flip=0.5))
    for row, value in ((3, False), (4, True)):
        sample = dataset[row]
        assert [view.shape for view in sample.views] == [(3, 16, 16)] * 2
        assert [bool(mask.all()) for mask in sample.masks] == [value] * 2
    flipped = base.views(1, joint)[5]
    assert torch.equal(flipped.views[0], to_unit_range(base[5].views[0]).flip(-1))


def test_batches_carry_masks_only_where_there_are_some(folder):
    dataset = ImageDataset(list_images(folder), masks=brightest).views(2, RandomResizedCrop(8))
    loader = make_loader(dataset, batch_size=4, shuffle=False, workers=1, seed=0)
    one, two = loader
    assert [mask.shape for mask in one.masks] == [(4, 8, 8)] * 2
    assert not one.masks[0].any()
    assert two.masks[1].all()
    plain = ImageDataset(list_images(folder)).views(1, CenterCrop(8))
    batch = next(iter(make_loader(plain, batch_size=4, shuffle=False, workers=0, seed=0)))
    assert len(batch.masks) == 0


@pytest.fixture
def masked(folder):
    """The folder's images in a manifest with a mask of three classes each, the last too small."""
    rows = ["image,Mask,site"]
    for k in range(8):
        kind = ("oat", "rye")[k // 4]
        classes = np.repeat(np.array([0, 1, 7], np.uint8), 16)[None].repeat(40, 0)
        if k == 1:
            classes = classes[::2, ::2]
        palette = Image.fromarray(classes, mode="P") if k == 2 else Image.fromarray(classes)
        if k == 2:
            palette.putpalette([200, 100, 50] * 256)
        palette.save(folder / f"m{k}.png")
        rows.append(f"{kind}/{k}.png,m{k}.png,s{k % 3}")
    (folder / "all.csv").write_text("\n".join(rows))
    return folder


def test_a_column_names_mask_files_of_class_numbers(masked):
    dataset = ImageDataset(list_images(masked / "all.csv"), masks="mask")
    for row in range(8):  # a palette's colours and half the size do not matter
        assert dataset[row].masks[0].unique().tolist() == [0, 1, 7]
        assert dataset[row].masks[0].shape == (40, 48)
        assert dataset[row].masks[0][5, ::16].tolist() == [0, 1, 7]
    assert len(dataset.checked()) == 8
    with pytest.raises(InputError, match=r"no column 'masks' .the columns are Mask, site"):
        ImageDataset(list_images(masked / "all.csv"), masks="masks")


def test_a_mask_that_is_missing_wrong_or_of_another_size_is_named_or_skipped(masked):
    Image.new("L", (30, 40)).save(masked / "m3.png")
    Image.fromarray(np.eye(40, 48, dtype=np.float32)).save(masked / "m4.tif")
    Image.fromarray(np.arange(5760, dtype=np.uint8).reshape(40, 48, 3)).save(masked / "m6.png")
    text = (masked / "all.csv").read_text().replace("m4.png", "m4.tif").replace("m5.png", "")
    (masked / "all.csv").write_text(text)
    table = list_images(masked / "all.csv")
    dataset = ImageDataset(table, masks="Mask")
    for row, told in (
        (3, r"3\.png: .*m3\.png: the mask is 30 x 40 pixels, its image 48 x 40"),
        (4, r"m4\.tif: .*one channel of whole numbers, this one is F"),
        (5, r"5\.png: no mask in column 'Mask'; mend it, or say on_error=skip"),
        (6, r"m6\.png: .*one channel of whole numbers, this one is RGB"),
    ):
        with pytest.raises(InputError, match=told):
            dataset[row]
    skipping = ImageDataset(table, masks="Mask", on_error="skip")
    assert skipping[3].row == 7
    assert len(skipping.checked()) == 4
    assert "4 unreadable images left out" in skipping.checked().table.notes[-1]
