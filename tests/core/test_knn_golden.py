"""Weighted nearest neighbours against HCSC's own evaluation."""

from pathlib import Path

import numpy as np
import torch

from cl_core.evaluation import knn_accuracy, knn_votes

GOLDEN = Path(__file__).parents[1] / "golden" / "hcsc.npz"


def test_votes_and_accuracies_are_those_of_hcsc():
    golden = np.load(GOLDEN, allow_pickle=False)
    train, labels, test, truth = (
        torch.from_numpy(golden[f"knn__{name}"]) for name in ("train", "ytr", "test", "yte")
    )
    k, temperature = int(golden["knn__k"]), float(golden["knn__T"])
    votes = knn_votes(test, train, labels, k=k, temperature=temperature, block_size=12)
    expected = torch.from_numpy(golden["knn__votes"])
    expected = expected / expected.sum(dim=1, keepdim=True)  # the official votes are not scaled
    torch.testing.assert_close(votes, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(votes.argmax(dim=1), torch.from_numpy(golden["knn__pred"]))
    # Classes without a vote tie; the official sort leaves them in order.
    order = votes.argsort(dim=1, descending=True, stable=True)
    five = (order[:, :5] == truth[:, None]).any(dim=1)
    assert 100 * five.double().mean().item() == golden["knn__top5"]
    accuracy = knn_accuracy(test, truth, train, labels, k=k, temperature=temperature)
    assert 100 * accuracy == golden["knn__top1"]
