"""Images that a caller holds train, measure and embed as files do."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import Dataset, TensorDataset

from cl_core.errors import InputError
from cl_core.images.memory import as_image, images_in_memory, memory_fingerprint
from cl_vision import EmbedConfig, EvaluateConfig, PretrainConfig, embed, evaluate, pretrain

X = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
Y = torch.tensor(load_digits().target)
QUICK = {
    "epochs": 1,
    "batch_size": 128,
    "image_size": 8,
    "channels": 1,
    "backbone": "resnet-4-24",
    "simclr": {"hidden": 16, "dim": 8},
    "trainer": {"progress": False, "tensorboard": False},
}


class Pictures(Dataset):
    """Pillow's images with their labels, as torchvision's data sets give them."""

    def __init__(self, n=40):
        self.targets = Y[:n].tolist()

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, row):
        return Image.fromarray((X[row, 0] * 255).byte().numpy()), self.targets[row]


class Views(Pictures):
    """Two views of each, made by the caller."""

    def __getitem__(self, row):
        return [X[row], X[row].flip(2)], self.targets[row]


def test_a_tensor_data_set_is_trained_on_and_asked_for_again(tmp_path):
    data = TensorDataset(X[:300], Y[:300])
    out = pretrain(PretrainConfig(data=data, out=tmp_path / "run", **QUICK)).out
    assert "data: (in memory) TensorDataset" in (out / "config.yaml").read_text()
    assert "300 images in memory" in (out / "data.json").read_text()
    with pytest.raises(InputError, match=r"trained on data in memory \(TensorDataset\).* --data"):
        evaluate(EvaluateConfig(run=out))
    metrics = evaluate(EvaluateConfig(run=out, data=data, few_labels="none")).metrics
    assert metrics["knn_accuracy"] > 0.3
    assert embed(EmbedConfig(run=out, data=(X[:9], Y[:9]), format="npy")).metrics["rows"] == 9
    other = TensorDataset(X[1:301], Y[1:301])
    with pytest.raises(InputError, match=r"the data \(300 images in memory\) are not those"):
        pretrain(PretrainConfig(data=other, out=out, resume=True, **QUICK))


def test_views_of_the_callers_own_are_taken_as_they_are(tmp_path):
    options = {**QUICK, "batch_size": 8}
    outcome = pretrain(PretrainConfig(data=Views(), out=tmp_path / "run", **options))
    assert np.isfinite(outcome.metrics["train/loss"])


@pytest.mark.parametrize(
    ("data", "labelled"),
    [
        (X[:20], False),
        (X[:20, 0].numpy(), False),
        ((X[:20] * 255).byte().permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy(), False),
        ((X[:20], Y[:20]), True),
        (TensorDataset(X[:20], Y[:20]), True),
        (TensorDataset(X[:20]), False),
        (Pictures(20), True),
        (Views(20), True),
        ([(X[k], int(Y[k])) for k in range(20)], True),
        (list(X[:20]), False),
    ],
    ids=["tensor", "greys", "last", "pair", "set", "bare", "pillow", "views", "list", "images"],
)
def test_the_forms_of_the_field_are_one(data, labelled):
    images = images_in_memory(data)
    assert len(images) == 20
    assert not images.has_files
    assert (images.labels >= 0).all() == labelled
    if labelled:
        assert images.labels.tolist() == Y[:20].tolist()
    x = images.dataset[3].views[0].float()
    assert torch.allclose(x[0] / (255 if x.max() > 1 else 1), X[3, 0], atol=0.005)


def test_negative_labels_are_none_and_text_is_a_class():
    assert images_in_memory((X[:3], np.array([-1, 0, 5]))).labels.tolist() == [-1, 0, 1]
    assert images_in_memory((X[:3], np.array(["b", "nan", "a"]))).labels.tolist() == [1, -1, 0]


def test_a_fingerprint_tells_pixels_and_labels():
    one = memory_fingerprint(images_in_memory((X[:20], Y[:20])))
    assert one == memory_fingerprint(images_in_memory(TensorDataset(X[:20], Y[:20])))
    assert one.digest != memory_fingerprint(images_in_memory((X[:20], Y[1:21]))).digest
    assert one.digest != memory_fingerprint(images_in_memory((X[1:21], Y[:20]))).digest


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "data must be text, got 3"),
        ({"x": 1}, "a dict in memory is no images"),
        (torch.zeros(2, 3), r"\(2, 3\) are no images"),
        (TensorDataset(X[:0], Y[:0]), "is empty"),
        ((X[:3], Y[:2]), r"3 images need a label each, got \(2,\)"),
        ((X[:3], torch.tensor([0.5, 1, 2])), "whole numbers or text, got fractions"),
        (X[:4] * 16, "row 0: values from 0 to 15: give uint8, or numbers in"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.int64), "torch.int64 is neither uint8 nor float"),
    ],
)
def test_what_is_no_images_is_refused_before_anything_is_written(tmp_path, data, message):
    with pytest.raises(InputError, match=message):
        pretrain(PretrainConfig(data=data, out=tmp_path / "run", **QUICK))
    assert not (tmp_path / "run").exists()


def test_shapes_that_are_no_image_are_named():
    with pytest.raises(InputError, match=r"row 7: \(4,\) is no image"):
        as_image(torch.zeros(4), "row 7")


def flowers(**columns):
    import datasets

    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (12, 10, 3), dtype=np.uint8) for _ in range(4)]
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["rye", "oat"])}
    rows = {"image": [Image.fromarray(p) for p in pictures], "label": [0, 1, -1, 1]} | columns
    kinds |= {name: datasets.Image() for name in columns}
    return pictures, datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))


@pytest.fixture
def hugging_face(monkeypatch, tmp_path):
    """The library, without a network and without a trace at home."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return pytest.importorskip("datasets", exc_type=ImportError)


def test_a_hugging_face_data_set_gives_images_and_the_names_of_its_classes(hugging_face):
    pictures, data = flowers()
    images = images_in_memory(data)
    assert images.class_names == ["rye", "oat", None, "oat"]
    assert np.array_equal(images.dataset[1].views[0].permute(1, 2, 0).numpy(), pictures[1])
    assert memory_fingerprint(images).digest != memory_fingerprint(images.select([0, 1])).digest
    assert images_in_memory(data.remove_columns("label")).labels.tolist() == [-1] * 4


def test_a_hugging_face_data_set_that_may_mean_several_things_is_told(hugging_face):
    pictures, data = flowers()
    with pytest.raises(InputError, match=r"DatasetDict of train: give one of them"):
        images_in_memory(hugging_face.DatasetDict({"train": data}))
    with pytest.raises(InputError, match=r"has 0 columns of images among label"):
        images_in_memory(data.remove_columns("image"))
    _, two = flowers(mask=[Image.fromarray(picture) for picture in pictures])
    with pytest.raises(InputError, match="has 2 columns of images"):
        images_in_memory(two)
    with pytest.raises(InputError, match="is empty"):
        images_in_memory(data.select([]))
