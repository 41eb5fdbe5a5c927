"""The figures are those of core's protocols on the representations, and tell what they should."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from cl_core.commands.outcome import slug
from cl_core.errors import InputError
from cl_core.evaluation import effective_rank, kmeans_scores, knn_accuracy
from cl_core.networks.backbones import build_backbone
from cl_vision.config import EvaluateConfig
from cl_vision.data import open_images
from cl_vision.digits import DIGITS
from cl_vision.evaluation.measures import measure, require_classes
from cl_vision.evaluation.nuisance import nuisance_scores
from cl_vision.model import ImageModel


class Pixels(nn.Module):
    """The image itself, or some statistic of it, as the representation."""

    def __init__(self, of=lambda x: x.flatten(1)) -> None:
        super().__init__()
        self.of = of

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.of(x)


@pytest.fixture(scope="module")
def model() -> ImageModel:
    torch.manual_seed(0)
    return ImageModel.of(
        build_backbone("resnet-4-24", in_channels=1, image_size=8),
        nn.Identity(),
        method="none",
        name="random",
        projector_card=None,
        image_size=8,
        statistics=DIGITS,
    ).eval()


@pytest.fixture(scope="module")
def digits():
    return open_images("digits").train_and_test(0.2, seed=0)


def config(**more) -> EvaluateConfig:
    return EvaluateConfig(run=Path("unused"), few_labels="none", **more)


def test_figures_are_cores_on_the_test_representations(model, digits):
    train, test = digits
    measured = measure("random", model, train, test, config(probe="hcsc", probe_epochs=1))
    x, x_test = model.represent(train), model.represent(test)
    assert torch.equal(measured.features, x_test)
    assert measured.scores["effective_rank"] == effective_rank(x_test)
    knn = knn_accuracy(x_test, test.labels, x, train.labels, k=20)
    assert measured.scores["knn_accuracy"] == knn
    clusters = kmeans_scores(x_test, test.labels, 10, 0)
    assert {name: measured.scores[name] for name in clusters} == clusters


def test_representations_are_those_of_the_normalised_images_in_order(model, digits):
    _, test = digits
    images = torch.stack([test.dataset[row].views[0] for row in range(5)])
    expected = model.encoder((images - DIGITS.mean[0]) / DIGITS.std[0])
    torch.testing.assert_close(model.represent(test, batch_size=7)[:5], expected.detach())


def test_nuisances_are_found_where_they_are_and_not_where_they_are_not(model, digits):
    train, test = digits
    model = ImageModel(model.encoder, model.projector, model.card)
    mean, std = DIGITS.mean[0], DIGITS.std[0]
    spread = lambda x: (std * x + mean).flatten(1).sum(1, keepdim=True)  # noqa: E731
    model.encoder = Pixels(lambda x: torch.cat([spread(x), spread(x) ** 2], 1))
    model.encoder.in_channels = 1
    brightness_alone = nuisance_scores(model, train, test)
    model.encoder.of = lambda x: nn.functional.normalize((std * x + mean).flatten(1))
    shape_alone = nuisance_scores(model, train, test)
    assert brightness_alone["brightness/accuracy"] > 0.35
    assert brightness_alone["rotation/accuracy"] < 0.3
    assert shape_alone["brightness/accuracy"] < 0.3
    assert shape_alone["rotation/accuracy"] > 0.35
    assert nuisance_scores(model, train, test) == shape_alone


def test_measuring_without_classes_is_refused(digits):
    train, test = digits
    alike = test.select(i for i in range(len(test)) if int(test.labels[i]) == 3)
    with pytest.raises(InputError, match="the test images have 1"):
        require_classes(train, alike)
    require_classes(train, test)


def test_other_channels_are_refused(model, digits, tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "0.png")
    with pytest.raises(InputError, match="3 channels, but the model was trained on 1"):
        model.represent(open_images(str(tmp_path)))


def test_options_out_of_range_are_refused():
    for wrong, told in (
        ({"test_share": 1.0}, "test_share"),
        ({"fractions": (0.0,)}, "fractions"),
        ({"neighbours": 0}, "neighbours"),
        ({"clusters": 1}, "clusters"),
        ({"augment": True}, "SGD"),
    ):
        with pytest.raises(ValueError, match=told):
            config(**wrong)


def test_names_become_prefixes():
    assert slug("SimCLR (no projector)") == "simclr_no_projector"
    assert slug("MoCo v2") == "moco_v2"
