"""Projections onto the plane."""

import sys

import numpy as np
import pytest
import torch

from cl_core.errors import InputError
from cl_core.evaluation import project_2d


def cloud(n=50, d=6):
    return np.random.default_rng(0).normal(size=(n, d)) * np.arange(1, d + 1)


def test_pca_gives_the_two_directions_of_largest_variance():
    x = cloud()
    points = project_2d(x, normalize=False)
    variance = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)[:2] ** 2
    np.testing.assert_allclose((points**2).sum(axis=0), variance, rtol=1e-10)
    assert abs(points[:, 0] @ points[:, 1]) < 1e-8 * variance[0]
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-12)


def test_pca_of_unit_rows_ignores_their_length():
    x = cloud()
    np.testing.assert_allclose(project_2d(x), project_2d(torch.tensor(x) * 3.0), atol=1e-12)
    assert not np.allclose(project_2d(x), project_2d(x, normalize=False))


def test_one_dimension_and_two_rows_still_have_a_picture():
    assert project_2d(np.array([[1.0], [3.0]]), normalize=False).tolist() == [[-1, 0], [1, 0]]
    assert project_2d(cloud(2)).shape == (2, 2)


def test_tsne_keeps_far_groups_apart_and_repeats_with_its_seed():
    x = np.r_[np.eye(4)[[0] * 15], np.eye(4)[[1] * 15]]
    x = x + 0.01 * np.random.default_rng(1).normal(size=x.shape)
    points = project_2d(x, "tsne", seed=1)
    np.testing.assert_array_equal(points, project_2d(x, "tsne", seed=1))
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert ((distance.argmin(axis=1) < 15) == (np.arange(30) < 15)).all()


def groups():
    x = np.r_[np.eye(4)[[0] * 20], np.eye(4)[[1] * 20]]
    return x + 0.01 * np.random.default_rng(1).normal(size=x.shape)


@pytest.mark.filterwarnings("ignore")  # numba's and umap's own
def test_umap_keeps_far_groups_apart_and_repeats_with_its_seed():
    pytest.importorskip("umap")
    points = project_2d(groups(), "umap", seed=1)
    np.testing.assert_array_equal(points, project_2d(groups(), "umap", seed=1))
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert ((distance.argmin(axis=1) < 20) == (np.arange(40) < 20)).all()


def test_umap_without_its_package_tells_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(InputError, match=r"pip install cl-core\[umap\]"):
        project_2d(cloud(), "umap")


def test_an_unknown_method_and_a_single_row_are_refused():
    with pytest.raises((ValueError, TypeError), match="tsne"):  # TypeError: beartype was faster
        project_2d(cloud(), "isomap")
    with pytest.raises(ValueError, match="at least 2 embeddings"):
        project_2d(cloud(1))
