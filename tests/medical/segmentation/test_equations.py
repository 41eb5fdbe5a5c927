"""Domain batch norm, losses and contrast against the golden arrays, and their laws."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cl_medical.segmentation.contrast import (
    alignment_and_separation,
    domain_contrast,
    multi_level_contrast,
    pooled,
)
from cl_medical.segmentation.domain_norm import (
    DomainBatchNorm,
    add_domain,
    convert_batch_norm,
    domain_layers,
    use_domain,
)
from cl_medical.segmentation.losses import (
    cross_entropy,
    dice_loss,
    dice_per_class,
    mean_over_domains,
)

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "multidomain_seg.npz")
RTOL, ATOL = 1e-6, 1e-9


def golden(name):
    return torch.tensor(GOLDEN[name])


def close(value, name):
    torch.testing.assert_close(value.detach(), golden(name), rtol=RTOL, atol=ATOL)


def golden_norm(dims):
    name = f"dsbn{dims}d"
    gamma = golden(f"{name}_gamma")
    kind = nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d
    layer = DomainBatchNorm(kind(gamma.shape[1]).double(), ["a", "b", "c"])
    with torch.no_grad():
        for k, norm in enumerate(layer.sets):
            norm.weight.copy_(gamma[k])
            norm.bias.copy_(golden(f"{name}_beta")[k])
            norm.running_mean.copy_(golden(f"{name}_running_mean0")[k])
            norm.running_var.copy_(golden(f"{name}_running_var0")[k])
    return layer


def statistics(layer, what):
    return torch.stack([getattr(norm, what) for norm in layer.sets])


@pytest.mark.parametrize("dims", [2, 3])
def test_domain_batch_norm_equals_the_golden_steps(dims):
    name, layer = f"dsbn{dims}d", golden_norm(dims)
    x = golden(f"{name}_x1").requires_grad_()
    with use_domain(layer, golden(f"{name}_ids1")):
        y = layer(x)
    close(y, f"{name}_train_y1")
    (golden(f"{name}_w") * y).sum().backward()
    close(x.grad, f"{name}_grad_x1")
    close(torch.stack([norm.weight.grad for norm in layer.sets]), f"{name}_grad_gamma1")
    close(torch.stack([norm.bias.grad for norm in layer.sets]), f"{name}_grad_beta1")
    close(statistics(layer, "running_mean"), f"{name}_running_mean1")
    close(statistics(layer, "running_var"), f"{name}_running_var1")
    assert statistics(layer, "num_batches_tracked").tolist() == (
        golden(f"{name}_num_batches1").tolist()
    )
    with use_domain(layer, golden(f"{name}_ids2")):
        close(layer(golden(f"{name}_x2")), f"{name}_train_y2")
    close(statistics(layer, "running_mean"), f"{name}_running_mean2")
    close(statistics(layer, "running_var"), f"{name}_running_var2")
    assert statistics(layer, "num_batches_tracked").tolist() == (
        golden(f"{name}_num_batches2").tolist()
    )
    layer.eval()
    with use_domain(layer, golden(f"{name}_ids1")):
        close(layer(golden(f"{name}_x3")), f"{name}_eval_y3")


def test_a_domain_that_is_not_in_the_batch_is_not_touched_by_a_bit():
    layer = DomainBatchNorm(nn.BatchNorm2d(3), ["a", "b"])
    before = copy.deepcopy(layer.sets[1].state_dict())
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        with use_domain(layer, "a"):
            layer(
                torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
            ).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    after = layer.sets[1].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ([0, 2], "lie between 0 and 1, got 2"),
        ([-1, 0], "lie between 0 and 1, got -1"),
        ("c", "no domain 'c': there are a, b"),
        (torch.tensor([0.0, 1.0]), "whole numbers"),
        ([], "no domain"),
    ],
)
def test_ids_that_name_no_domain_are_refused(ids, told):
    layer = DomainBatchNorm(nn.BatchNorm2d(3), ["a", "b"])
    with pytest.raises(ValueError, match=told), use_domain(layer, ids):
        pass


def test_a_forward_pass_without_a_domain_is_refused_also_after_an_exception():
    layer = DomainBatchNorm(nn.BatchNorm2d(3), ["a", "b"])
    with pytest.raises(RuntimeError, match="stop"), use_domain(layer, "a"):
        raise RuntimeError("stop")
    with pytest.raises(ValueError, match="use_domain"):
        layer(torch.randn(2, 3, 4, 4))
    with use_domain(layer, [0, 1]), pytest.raises(ValueError, match="2 domain ids"):
        layer(torch.randn(3, 3, 4, 4))


def test_conversion_keeps_shared_layers_shared_and_copies_statistics():
    norm = nn.BatchNorm2d(2)
    with torch.no_grad():
        norm.weight.fill_(3.0)
        norm.running_mean.fill_(5.0)
    model = convert_batch_norm(nn.Sequential(norm, nn.ReLU(), norm), ["a", "b"])
    assert model[0] is model[2]
    assert model[0].sets[1].weight.tolist() == [3.0, 3.0]
    assert model[0].sets[1].running_mean.tolist() == [5.0, 5.0]
    with pytest.raises(ValueError, match="domains already"):
        convert_batch_norm(model, ["a"])
    with pytest.raises(ValueError, match="no batch norm"):
        convert_batch_norm(nn.Sequential(nn.Conv2d(1, 1, 1)), ["a"])
    with pytest.warns(UserWarning, match="GroupNorm"):
        convert_batch_norm(nn.Sequential(nn.BatchNorm2d(2), nn.GroupNorm(1, 2)), ["a"])


def test_a_domain_is_added_as_a_copy_or_fresh():
    model = convert_batch_norm(nn.Sequential(nn.BatchNorm2d(2)), ["a"])
    with torch.no_grad():
        model[0].sets[0].weight.fill_(2.0)
    add_domain(model, "b", copy_of="a")
    add_domain(model, "c")
    assert [norm.weight[0].item() for norm in model[0].sets] == [2.0, 2.0, 1.0]
    assert domain_layers(model)[0].domains == ("a", "b", "c")
    with pytest.raises(ValueError, match="'b' already"):
        add_domain(model, "b")


@pytest.mark.parametrize("case", ["a", "absent", "empty", "3d"])
def test_the_segmentation_loss_equals_the_golden_one(case):
    logits = golden(f"dice_{case}_logits").requires_grad_()
    target = golden(f"dice_{case}_target")
    terms, _ = dice_per_class(logits, target)
    close(terms, f"dice_{case}_dice_per_class")
    dice = dice_loss(logits, target)
    close(dice, f"dice_{case}_dice_loss")
    close(torch.autograd.grad(dice, logits)[0], f"dice_{case}_grad_dice")
    ce = cross_entropy(logits, target)
    close(ce, f"dice_{case}_ce_loss")
    close(torch.autograd.grad(ce, logits)[0], f"dice_{case}_grad_ce")
    close(dice + ce, f"dice_{case}_dicece_loss")


def test_unknown_voxels_count_for_nothing_and_absent_classes_can_be_skipped():
    g = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 4, 4, generator=g, dtype=torch.float64)
    labels = torch.randint(0, 2, (2, 4, 4), generator=g)
    hidden = labels.clone()
    hidden[:, :, 2:] = 255
    for loss in (cross_entropy, dice_loss):
        whole = loss(logits[..., :2], labels[..., :2])
        torch.testing.assert_close(loss(logits, hidden), whole)
    only = dice_per_class(logits, labels)[0][0]
    torch.testing.assert_close(dice_loss(logits, labels, skip_absent_classes=True), only)
    nothing = torch.full_like(labels, 255)
    assert cross_entropy(logits, nothing).item() == 0.0


def test_the_mean_over_domains_does_not_count_samples():
    loss = mean_over_domains({0: torch.tensor(1.0), 3: torch.tensor(2.0)}, {3: 2.0})
    assert loss.item() == 2.5
    with pytest.raises(ValueError, match="one at least"):
        mean_over_domains({})


@pytest.mark.parametrize("case", ["a", "single", "onedomain", "unbal"])
def test_the_contrast_of_domains_equals_the_golden_one(case):
    domain = golden(f"con_{case}_domain")
    tau = float(GOLDEN[f"con_{case}_tau"])
    for rule, name in (("exclude", "exclude"), ("all", "all")):
        h = golden(f"con_{case}_h").requires_grad_()
        loss = domain_contrast(h, domain, tau, singles=rule)
        close(loss, f"con_{case}_loss_{name}")
        loss.backward()
        close(h.grad, f"con_{case}_grad_{name}")
    per_anchor, counts = golden(f"con_{case}_per_anchor"), torch.bincount(domain)
    if case != "onedomain":  # there the loss is defined as 0, whatever the anchors say
        anchors = counts[domain] > 1
        torch.testing.assert_close(
            per_anchor[anchors].mean(), golden(f"con_{case}_loss_exclude"), rtol=RTOL, atol=ATOL
        )


def test_the_contrast_of_several_levels_is_the_mean_over_them():
    maps = [golden(f"conms_feat{i}").requires_grad_() for i in range(3)]
    domain, tau = golden("conms_domain"), float(GOLDEN["conms_tau"])
    loss = multi_level_contrast(maps, domain, tau)
    close(loss, "conms_loss")
    each = torch.stack([domain_contrast(pooled(one), domain, tau) for one in maps])
    close(each, "conms_loss_per_scale")
    loss.backward()
    for i, one in enumerate(maps):
        close(one.grad, f"conms_grad{i}")
    with pytest.raises(ValueError, match="as many temperatures"):
        multi_level_contrast(maps, domain, [0.1])


def test_alignment_and_separation_are_mean_cosines():
    h = torch.tensor([[2.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    assert alignment_and_separation(h, torch.tensor([0, 0, 1])) == (1.0, 0.0)
