"""Projection heads are the papers' stacks of layers."""

import pytest
import torch
from torch import nn

from cl_core.networks.heads import build_head


def kinds(head):
    return [type(layer).__name__ for layer in head.layers]


def biases(head):
    return [layer.bias is not None for layer in head.layers if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize("kind", ["moco", "supcon"])
def test_moco_and_supcon_project_by_two_linear_layers_without_batch_norm(kind):
    head = build_head(kind, 20)
    assert kinds(head) == ["Linear", "ReLU", "Linear"]
    assert [tuple(layer.weight.shape) for layer in head.layers[::2]] == [(20, 20), (128, 20)]
    assert biases(head) == [True, True]


def test_hcsc_on_a_resnet50_has_the_published_number_of_parameters():
    head = build_head("moco", 2048)
    assert sum(p.numel() for p in head.parameters()) == 2048 * 2048 + 2048 + 2048 * 128 + 128


def test_simclr_has_batch_norm_after_both_layers_and_no_bias():
    head = build_head("simclr", 20, 8)
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert biases(head) == [False, False]


def test_an_mlp_is_linear_relu_linear_in_its_own_words():
    torch.manual_seed(0)
    head = build_head("mlp", 6, 4, hidden=5).double()
    x = torch.randn(3, 6, dtype=torch.float64)
    first, second = head.layers[0], head.layers[2]
    expected = (x @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias
    torch.testing.assert_close(head(x), expected)


def test_a_bias_stays_away_from_batch_norm_only():
    head = build_head("mlp", 6, 4, hidden=5, layers=3, batch_norm=True)
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert biases(head) == [False, False, True]
    assert biases(build_head("mlp", 6, 4, bias=False)) == [False, False]


def test_no_head_gives_the_representation_itself():
    head = build_head("none", 6, 4)
    x = torch.ones(2, 6)
    assert head(x) is x
    assert head.out_features == 6


def test_a_linear_head_is_one_layer_of_the_asked_widths():
    head = build_head("linear", 6, 4, bias=False)
    assert kinds(head) == ["Linear"]
    assert (head.in_features, head.out_features) == (6, 4)
    assert head(torch.ones(2, 6)).shape == (2, 4)
    assert biases(head) == [False]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("mpl", 4), {}, "mpl"),
        (("mlp", 0), {}, "widths must be positive, got 0"),
        (("mlp", 4), {"hidden": -1}, "widths must be positive, got 4 -> -1 -> 128"),
        (("mlp", 4), {"layers": 1}, "at least 2 layers, got 1: use kind='linear'"),
    ],
)
def test_impossible_heads_are_refused(arguments, options, message):
    with pytest.raises((ValueError, TypeError), match=message):  # TypeError: beartype was faster
        build_head(*arguments, **options)
