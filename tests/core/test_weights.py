"""Weight files: nothing in them runs, and what does not fit is named."""

import io
import os
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from cl_core.errors import InputError
from cl_core.networks.weights import adapt_channels, find_prefix, load_weights, read_weights


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (str(self.target),))


def test_both_kinds_of_file_give_back_what_was_saved(tmp_path):
    state = network().state_dict()
    torch.save(state, tmp_path / "a.pt")
    save_file(state, tmp_path / "a.safetensors")
    (tmp_path / "run").mkdir()
    save_file(state, tmp_path / "run" / "model.safetensors")
    for name in ("a.pt", "a.safetensors", "run"):
        found = read_weights(tmp_path / name)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key]) for key in state)


@pytest.mark.parametrize("entry", ["state_dict", "model"])
def test_a_training_checkpoint_gives_its_weights(tmp_path, entry):
    path = tmp_path / "last.ckpt"
    torch.save({"epoch": 3, "lr": 0.1, entry: {"w": torch.ones(2), "step": 4}}, path)
    assert read_weights(path).keys() == {"w"}


@pytest.mark.parametrize("name", ["bomb.pt", "bomb.safetensors"])
@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_pickle_is_refused_and_not_executed(tmp_path, name, writer):
    path, target = tmp_path / name, tmp_path / "exploded"
    content = {"w": torch.ones(2), "bomb": Bomb(target)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=rf"{name}.*(nothing in it was run|no safetensors)"):
        read_weights(path)
    assert not target.exists()
    data = path.read_bytes()
    torch.load(io.BytesIO(data), weights_only=False) if writer == "torch" else pickle.loads(data)
    assert target.exists()  # the bomb was live


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", b"", "is empty"),
        ("a.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{", "damaged or no safetensors"),
        ("a.safetensors", b"\xff" * 64, "damaged or no safetensors"),
        ("a.pt", b"", "damaged or no weight file"),
        ("a.pt", b"PK\x03\x04 cut short", "damaged or no weight file"),
        ("a.pt", b"not a checkpoint at all", "is refused|damaged"),
    ],
)
def test_damaged_files_are_named_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_weights(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_damaged(tmp_path):
    for name, save in (("a.safetensors", save_file), ("a.pt", torch.save)):
        path = tmp_path / name
        save(network().state_dict(), path)
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(InputError, match="damaged"):
            read_weights(path)


def test_missing_files_and_files_without_weights_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot read the weights .*none.pt: No such file"):
        read_weights(tmp_path / "none.pt")
    with pytest.raises(InputError, match=r"model.safetensors: No such file"):
        read_weights(tmp_path)
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(InputError, match="holds no named tensors"):
        read_weights(tmp_path / "empty.pt")
    torch.save(torch.ones(2), tmp_path / "tensor.pt")
    with pytest.raises(InputError, match="holds no named tensors"):
        read_weights(tmp_path / "tensor.pt")


@given(st.integers(1, 14), st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=30)
def test_an_image_that_is_the_same_in_every_channel_is_answered_alike(channels, seed):
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, 3, 3, 3, generator=g, dtype=torch.float64)
    grey = torch.randn(2, 1, 6, 6, generator=g, dtype=torch.float64)
    adapted = adapt_channels(weight, channels)
    torch.testing.assert_close(
        nn.functional.conv2d(grey.expand(-1, channels, -1, -1), adapted),
        nn.functional.conv2d(grey.expand(-1, 3, -1, -1), weight),
    )


def test_channels_take_the_documented_shares():
    r, g, b = torch.eye(3).reshape(3, 3, 1, 1).split(1)  # filters that mark their colour
    weight = torch.cat([r, g, b], dim=0).sum(0, keepdim=True)
    assert adapt_channels(weight, 1).flatten().tolist() == [3]
    assert adapt_channels(weight, 2).flatten().tolist() == [2, 1]
    assert adapt_channels(weight, 4).flatten().tolist() == [0.5, 1, 1, 0.5]
    colours = torch.arange(3.0).reshape(1, 3, 1, 1)  # R is 0, G 1, B 2
    assert adapt_channels(colours, 6).flatten().tolist() == [0, 0.5, 1, 0, 0.5, 1]
    assert torch.equal(adapt_channels(colours, 3), colours)
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        adapt_channels(colours, 0)
    with pytest.raises(ValueError, match=r"needs RGB filters .* got \(1, 4, 1, 1\)"):
        adapt_channels(adapt_channels(colours, 4), 2)


@pytest.mark.parametrize(
    ("keys", "prefix"),
    [
        (["a.w", "b.w"], ""),
        (["module.a.w", "module.b.w"], "module."),
        (["module.encoder_q.a.w", "module.encoder_k.a.w", "module.queue"], "module.encoder_q."),
        (["encoder.trunk.a.w", "encoder.trunk.b.w", "head.a.w"], "encoder.trunk."),
        (["backbone.a.w", "backbone.b.w", "a.w"], "backbone."),
        (["momentum.a.w", "momentum.b.w"], ""),
        (["modules.a.w"], ""),
    ],
)
def test_the_prefix_is_the_one_under_which_most_keys_lie(keys, prefix):
    assert find_prefix(keys, ["a.w", "b.w"]) == prefix


@given(st.permutations(["module", "model", "backbone", "encoder", "trunk"]), st.integers(0, 5))
@settings(deadline=None, max_examples=20)
def test_any_chain_of_wrappers_comes_off(chain, depth):
    prefix = "".join(f"{name}." for name in chain[:depth])
    target, source = network(), network()
    state = {prefix + key: value for key, value in source.state_dict().items()}
    load_weights(target, state, source="f", name="net")
    assert torch.equal(target[0].weight, source[0].weight)


def test_a_classifier_is_dropped_and_other_parts_left_alone():
    target, source = network(), network()
    state = {f"encoder.{key}": value for key, value in source.state_dict().items()}
    state |= {"encoder.fc.0.weight": torch.ones(1), "encoder.fc.2.bias": torch.ones(1)}
    state |= {"projector.0.weight": torch.ones(1)}
    load_weights(target, state, source="f", name="net", ignore=("fc",))
    assert torch.equal(target[0].weight, source[0].weight)
    with pytest.raises(InputError, match=r"2 do not belong to it \(fc.0.weight, fc.2.bias\)"):
        load_weights(target, state, source="f", name="net")


def test_old_files_without_batch_counters_are_taken():
    source = network()
    state = {k: v for k, v in source.state_dict().items() if "num_batches" not in k}
    load_weights(network(), state, source="f", name="net")


def test_what_does_not_fit_is_named_and_nothing_is_loaded():
    target = network()
    before = target[0].weight.clone()
    state = network().state_dict() | {"0.bias": torch.ones(7), "2.weight": torch.ones(1)}
    del state["1.weight"]
    with pytest.raises(InputError) as error:
        load_weights(target, state, source="f.pt", name="net")
    assert str(error.value) == (
        "f.pt does not fit net: 1 of 7 weights are missing (1.weight); 1 do not belong to it "
        "(2.weight); 1 have another shape (0.bias is 7, expected 4); give weights of this "
        "architecture, stem and number of channels"
    )
    assert torch.equal(target[0].weight, before)


def test_only_rgb_weights_of_a_first_convolution_are_adapted():
    five = nn.Sequential(nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4))
    source = network()
    load_weights(five, source.state_dict(), source="f", name="net", rgb=("0",))
    torch.testing.assert_close(five[0].weight, adapt_channels(source[0].weight, 5))
    with pytest.raises(InputError, match=r"0.weight is 4x3x3x3, expected 4x5x3x3"):
        load_weights(five, source.state_dict(), source="f", name="net")
    with pytest.raises(InputError, match=r"0.weight is 4x5x3x3, expected 4x3x3x3"):
        load_weights(network(), five.state_dict(), source="f", name="net", rgb=("0",))
