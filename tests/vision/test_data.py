"""Images become batches as documented: splits, channels, statistics, views, caches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cl_core.errors import InputError
from cl_core.images import MAX_PIXELS
from cl_core.transforms import IMAGENET, GaussianBlur, Statistics
from cl_vision.config import PretrainConfig
from cl_vision.data import (
    Images,
    evaluation_loader,
    evaluation_view,
    measure_statistics,
    open_images,
    training_loader,
    training_views,
)

GREY = Statistics((0.5,), (0.25,))
COLOUR = Statistics((0.5,) * 3, (0.25,) * 3)


def write(folder: Path, names: list[str], *, size: int = 12, mode: str = "RGB") -> str:
    rng = np.random.default_rng(0)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(path)
    return str(folder)


@pytest.fixture
def folder(tmp_path) -> str:
    return write(tmp_path / "a", [f"{c}/{n}.png" for c in ("oat", "rye") for n in range(10)])


def blurs(view: torch.nn.Module) -> list[float]:
    return [part.p for part in view.modules() if isinstance(part, GaussianBlur)]


def test_a_folder_of_splits_trains_on_its_training_part(tmp_path):
    names = [f"{s}/{c}/{n}.png" for s in ("train", "test") for c in ("a", "b") for n in range(3)]
    images = open_images(write(tmp_path / "x", names))
    assert len(images) == 12
    assert all(name.startswith("train/") for name in images.training().names)
    train, test = images.train_and_test(0.5, seed=0)
    assert (len(train), len(test)) == (6, 6)
    assert all(name.startswith("test/") for name in test.names)


def test_images_without_a_split_are_split_by_class_and_by_seed(folder):
    images = open_images(folder)
    assert len(images.training()) == 20
    train, test = images.train_and_test(0.2, seed=0)
    assert (len(train), len(test)) == (16, 4)
    assert torch.bincount(test.labels).tolist() == [2, 2]
    assert not set(train.names) & set(test.names)
    assert images.train_and_test(0.2, seed=0)[1].names == test.names
    assert images.train_and_test(0.2, seed=1)[1].names != test.names


def test_labels_can_be_left_out_and_taken_from_a_column(folder, tmp_path):
    assert (open_images(folder, labels="none").labels == -1).all()
    lines = ["image,kind", "oat/0.png,x", "rye/1.png,y"]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    own = {"root": Path(folder)}
    by_column = open_images(str(tmp_path / "list.csv"), labels="kind", **own)
    assert by_column.table.classes == ("x", "y")
    assert (open_images(str(tmp_path / "list.csv"), labels="none", **own).labels == -1).all()
    with pytest.raises(InputError, match="sub-folders"):
        open_images(folder, labels="kind")


@pytest.mark.parametrize(("mode", "asked", "got"), [("L", 3, 3), ("RGBA", 4, 4), ("LA", "keep", 2)])
def test_images_have_the_channels_asked_for(tmp_path, mode, asked, got):
    images = open_images(write(tmp_path / "x", ["0.png", "1.png"], mode=mode), channels=asked)
    assert images.channels == got
    assert images.dataset[0].views[0].shape[0] == got


def test_a_cache_gives_the_same_pixels_and_is_made_once(folder, tmp_path):
    plain = open_images(folder)
    cached = open_images(folder, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    stamp = file.stat().st_mtime_ns
    again = open_images(folder, cache=tmp_path / "cache")
    assert file.stat().st_mtime_ns == stamp
    for images in (cached, again):
        assert torch.equal(images.dataset[7].views[0], plain.dataset[7].views[0])
    open_images(folder, cache=tmp_path / "cache", channels=1)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_statistics_are_those_of_the_images_or_imagenets(folder):
    images = open_images(folder)
    pixels = torch.stack([images.dataset[i].views[0] for i in range(20)]).double() / 255
    found = measure_statistics(images, "data")
    assert found.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-9)
    assert found.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-9)
    assert measure_statistics(images, "imagenet") == IMAGENET
    with pytest.raises(InputError, match="3 channels"):
        measure_statistics(open_images(folder, channels=1), "imagenet")


def test_a_constant_channel_is_told(tmp_path):
    (tmp_path / "x").mkdir()
    Image.new("RGB", (8, 8), (0, 10, 10)).save(tmp_path / "x" / "0.png")
    with pytest.raises(InputError, match="constant"):
        measure_statistics(open_images(str(tmp_path / "x")), "data")


def test_views_follow_the_paper_and_the_size():
    def views(method, size=224, **more):
        return training_views(method, size, COLOUR, channels=3, **more)

    assert [blurs(v) for v in views("simclr")] == [[0.5], [0.5]]
    assert [blurs(v) for v in views("directclr")] == [[1.0], [0.1]]
    assert [blurs(v) for v in views("moco")] == [[0.5], [0.5]]
    for method in ("simclr", "directclr", "moco"):
        assert [blurs(v) for v in views(method, 32)] == [[], []]
    assert [blurs(v) for v in views("simclr", augmentation="directclr")] == [[1.0], [0.1]]


def test_multi_crop_gives_four_smaller_views():
    crops = training_views("moco", 112, COLOUR, channels=3, multi_crop=True)
    image = torch.randint(0, 256, (3, 130, 120), dtype=torch.uint8)
    torch.manual_seed(0)
    assert [crop(image).shape[-1] for crop in crops] == [112, 112, 96, 80, 64, 48]
    with pytest.raises(InputError, match="multi_crop"):
        training_views("moco", 8, GREY, channels=1, multi_crop=True, digits=True)


def test_small_images_are_measured_without_enlarging_them():
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    unit = image.float() / 255
    torch.testing.assert_close(evaluation_view(32, None)(image), unit)
    normalized = evaluation_view(32, COLOUR)(image)
    torch.testing.assert_close(normalized, (unit - 0.5) / 0.25)
    assert evaluation_view(96, None)(torch.zeros(3, 200, 300)).shape == (3, 96, 96)


def test_batches_are_full_and_views_of_one_image_differ(folder):
    images = open_images(folder)
    views = training_views("moco", 8, COLOUR, channels=3)
    loader = training_loader(images, views, batch_size=6, workers=0, seed=0)
    batches = list(loader)
    assert [len(batch.row) for batch in batches] == [6, 6, 6]
    assert batches[0].views[0].shape == (6, 3, 8, 8)
    assert not torch.equal(*batches[0].views)
    for batch in batches:
        assert torch.equal(images.labels[batch.row], batch.label)
    ordered = torch.cat([b.row for b in evaluation_loader(images, views[0], batch_size=7)])
    assert ordered.tolist() == list(range(20))


def test_too_few_images_are_refused(folder):
    images = open_images(folder)
    views = training_views("moco", 8, COLOUR, channels=3)
    with pytest.raises(InputError, match="1 image to train on"):
        training_loader(images.select([3]), views, batch_size=2, workers=0, seed=0)
    with pytest.raises(InputError, match="batch_size 21 is larger than the 20 images"):
        training_loader(images, views, batch_size=21, workers=0, seed=0)


def test_unreadable_files_are_left_out_or_named(folder):
    (Path(folder) / "oat" / "3.png").write_bytes(b"")
    skipped = open_images(folder, on_error="skip")
    assert len(skipped) == 19
    assert any("oat/3.png" in note for note in skipped.summary())
    stopped: Images = open_images(folder)
    with pytest.raises(InputError, match=r"oat/3\.png"):
        list(evaluation_loader(stopped, evaluation_view(8, None), batch_size=20))


def floats(folder: Path, *, high: float = 255.0) -> str:
    rng = np.random.default_rng(0)
    for kind in "ab":
        (folder / kind).mkdir(parents=True)
        for number in range(6):
            values = rng.uniform(0.2 * high, 0.9 * high, (12, 12)).astype(np.float32)
            Image.fromarray(values).save(folder / kind / f"{number}.tif")
    return str(folder)


def test_float_images_outside_the_unit_range_are_refused_or_scaled(tmp_path):
    data = floats(tmp_path / "x")
    with pytest.raises(InputError, match=r"outside 0 to 1; say .*value_range=255"):
        measure_statistics(open_images(data), "data")
    for asked, kept in ((255, 255.0), ("auto", (0.0, 255.0)), ((0.0, 510.0), (0.0, 510.0))):
        images = open_images(data, value_range=asked)
        assert images.value_range == kept
        mean = measure_statistics(images, "data").mean[0]
        assert mean == pytest.approx(0.55 if asked != (0.0, 510.0) else 0.275, abs=0.02)
        views = training_views("simclr", 8, COLOUR, channels=3)
        torch.manual_seed(0)
        assert all(views[0](images.dataset[row].views[0]).std() > 0.01 for row in range(12))
    told = open_images(data, value_range="auto").summary()
    assert "values of 32-bit files: 0 becomes 0, 255 becomes 1" in told
    assert open_images(data, value_range="auto", cache=tmp_path / "c").dataset[0].views[0].max() < 1


def test_the_range_is_measured_on_the_images_trained_on(tmp_path):
    floats(tmp_path / "x" / "train", high=4095.0)
    floats(tmp_path / "x" / "test", high=60000.0)
    images = open_images(str(tmp_path / "x"), value_range="auto")
    assert images.value_range == (0.0, 4095.0)
    train, test = images.train_and_test(0.2, seed=0)
    assert train.dataset[0].views[0].max() < 1
    with pytest.raises(InputError, match="outside 0 to 4095"):
        test.dataset[0]
    write(tmp_path / "bytes", ["a/0.png", "b/1.png"])
    assert open_images(str(tmp_path / "bytes"), value_range="auto").value_range is None


def test_a_class_of_one_image_does_not_block_the_split(tmp_path):
    names = [f"{kind}/{n}.png" for kind in ("a", "b") for n in range(10)]
    images = open_images(write(tmp_path / "x", [*names, "rare/0.png"]))
    train, test = images.train_and_test(0.2, seed=0)
    assert "rare/0.png" in train.names
    assert len(test) == 4
    assert train.summary()[-1] == (
        "classes of too few images, or groups of them, to be tested too; all their images are "
        "trained on: rare (1)"
    )
    assert images.summary()[1:] == []


def test_splits_and_the_largest_image_are_options(tmp_path):
    data = write(tmp_path / "x", ["train/a/0.png", "train/b/1.png", "test/a/2.png", "more/3.png"])
    with pytest.raises(InputError, match=r"splits=folder .* or splits=none"):
        open_images(data)
    assert len(open_images(data, splits="folder")) == 3
    assert open_images(data, splits="none").table.classes == ("more", "test", "train")
    assert len(open_images(data, splits="folder", max_pixels=144).training()) == 2
    with pytest.raises(InputError, match=r"144 pixels, more than max_pixels=143"):
        open_images(data, splits="none", max_pixels=143).dataset[0]


def test_the_defaults_of_the_options_are_cores():
    assert PretrainConfig(data="x", out="y").max_pixels == MAX_PIXELS


def test_digits_are_one_channel_with_their_split():
    images = open_images("digits", channels=3)
    assert (images.channels, images.is_digits, len(images)) == (1, True, 1797)
    train, test = images.train_and_test(0.2, seed=5)
    assert (len(train), len(test), len(images.training())) == (1437, 360, 1437)
    views = training_views("simclr", 8, GREY, channels=1, digits=True)
    batch = next(iter(training_loader(train, views, batch_size=32, workers=0, seed=0)))
    assert batch.views[0].shape == (32, 1, 8, 8)
