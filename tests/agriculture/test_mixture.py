"""Principal components, given and fitted mixtures, their choice, and the names of groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cl_agriculture.groups import contingency, group_rows, label_doubt, label_figures, shape_figures
from cl_agriculture.growth import growth_rows
from cl_agriculture.hyper import MixtureHyper
from cl_agriculture.mixture.alignment import aligned_names
from cl_agriculture.mixture.fitting import Fit, fit_mixture
from cl_agriculture.mixture.gaussians import Mixture, num_parameters
from cl_agriculture.mixture.pca import fit_pca
from cl_agriculture.mixture.selection import candidate_counts, choose, select_mixture
from cl_agriculture.scoring import Scored
from cl_core.errors import InputError
from cl_core.evaluation import hungarian_accuracy

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "claws.npz")
X = GOLDEN["g_X"]
GIVEN = Mixture(GOLDEN["p_weights"], GOLDEN["p_means"], GOLDEN["p_covs"])
QUICK = MixtureHyper(starts=2)


def test_a_given_mixture_says_what_the_reference_says():
    found = GIVEN.assign(X)
    np.testing.assert_allclose(found.ll, GOLDEN["p_loglik"], rtol=1e-6)
    np.testing.assert_allclose(GIVEN.log_likelihood(X), GOLDEN["p_loglik"], rtol=1e-6)
    np.testing.assert_allclose(GIVEN.responsibilities(X), GOLDEN["p_resp"], rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(found.component, GOLDEN["p_assign"])
    np.testing.assert_allclose(found.entropy, GOLDEN["p_entropy"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.mahalanobis**2, GOLDEN["p_mahal"], rtol=1e-6)
    assert GIVEN.bic(X) == pytest.approx(float(GOLDEN["p_bic"]), rel=1e-6)
    assert GIVEN.aic(X) == pytest.approx(float(GOLDEN["p_aic"]), rel=1e-6)
    threshold = float(np.quantile(found.ll, 0.01))
    assert threshold == pytest.approx(float(GOLDEN["p_thr_q01"]), rel=1e-6)
    np.testing.assert_array_equal(found.ll < threshold, GOLDEN["p_outlier"])


def test_representatives_and_outliers_come_in_the_reference_order():
    found, n = GIVEN.assign(X), len(X)
    scored = Scored(
        files=[f"{row:04d}" for row in range(n)],
        labels=[None] * n,
        splits=None,
        scores=X,
        assigned=found,
        names=found.component,
        rank=np.ones(n),
        flagged=np.zeros(n, dtype=bool),
        majority=[None] * n,
        doubt=np.full(n, np.nan),
        masks=None,
    )
    for k in range(3):
        assert scored.typical_of(k, 3) == GOLDEN["p_rep_order"][k].tolist()
        assert scored.odd_of(k, 3) == GOLDEN["p_out_order"][k].tolist()


@pytest.mark.parametrize("shape", ["full", "tied", "diag", "spherical"])
def test_fits_find_the_reference_number_of_groups(shape):
    counts = GOLDEN["g_Ks"].tolist()
    hyper = MixtureHyper(starts=8 if shape == "spherical" else 2)
    fits = [fit_mixture(X, k, shape, hyper, seed=0) for k in counts]
    assert choose(fits, 4).count == int(GOLDEN[f"g_bestk_{shape}"])
    best = int(np.argmin(GOLDEN[f"g_bic_{shape}"]))
    assert fits[best].bic == pytest.approx(float(GOLDEN[f"g_bic_{shape}"][best]), rel=1e-3)
    numbers = [num_parameters(shape, k, 4) for k in counts]
    assert numbers == GOLDEN[f"g_npar_{shape}"].tolist()


def test_principal_components_equal_the_reference_and_go_back():
    pca = fit_pca(X, 2)
    np.testing.assert_allclose(np.abs(pca.scores(X)), GOLDEN["pca_absproj"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(pca.explained, GOLDEN["pca_evr"], rtol=1e-6)
    largest = np.abs(pca.components).argmax(axis=1)
    assert (pca.components[[0, 1], largest] > 0).all()
    whole = fit_pca(X, 4, whiten=True)
    np.testing.assert_allclose(whole.vectors(whole.scores(X)), X, atol=1e-9)
    np.testing.assert_allclose(whole.scores(X).std(axis=0, ddof=1), 1, rtol=1e-9)


def test_vectors_that_cannot_be_reduced_are_refused():
    with pytest.raises(ValueError, match="between 1 and 4 for 180 vectors"):
        fit_pca(X, 5)
    broken = X.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        fit_pca(broken, 2)


def test_groups_are_numbered_by_size_and_do_not_depend_on_the_order_of_rows():
    order = np.random.default_rng(0).permutation(len(X))
    one, other = (fit_mixture(x, 3, "full", QUICK, seed=0).mixture for x in (X, X[order]))
    assert one is not None
    assert other is not None
    assert (np.diff(one.weights) <= 0).all()
    np.testing.assert_allclose(one.means, other.means, atol=1e-2)


def test_a_fit_on_many_rows_starts_on_a_sample_and_ends_on_all():
    x = np.concatenate([X + shift for shift in np.linspace(0, 0.01, 4)])
    sampled = fit_mixture(x, 3, "full", MixtureHyper(starts=2, sample=200), seed=0)
    whole = fit_mixture(x, 3, "full", QUICK, seed=0)
    assert sampled.bic == pytest.approx(whole.bic, rel=1e-4)


def test_a_broken_component_is_mended_or_told_but_never_raises():
    x = np.concatenate([np.zeros((40, 3)), np.ones((2, 3)), np.full((1, 3), 9.0)])
    fit = fit_mixture(x, 3, "full", QUICK, seed=0)
    assert fit.note
    many = fit_mixture(np.arange(12.0).reshape(6, 2), 5, "full", QUICK, seed=0)
    assert many.mixture is None
    assert "a component of" in many.note


def test_bic_takes_the_smallest_number_within_ten_of_the_minimum():
    def fit(count, bic, shape="full"):
        return Fit(count, shape, GIVEN, bic)

    assert choose([fit(2, 100.0), fit(3, 95.0), fit(4, 92.0)], 4).count == 2
    assert choose([fit(2, 100.0), fit(3, 80.0)], 4).count == 3
    two = choose([fit(3, 80.0), fit(3, 80.0, "diag")], 4)
    assert two.covariance == "diag"  # fewer numbers


def test_candidates_follow_rows_dimensions_and_labels():
    assert candidate_counts(1397, 16, 12) == list(range(2, 18))
    assert candidate_counts(10_000, 4, 3) == list(range(2, 10))
    assert max(candidate_counts(10**6, 4, 0)) == 30
    assert candidate_counts(100, 16, 3) == []


def test_too_few_rows_are_told_with_a_remedy():
    options = {"clusters": None, "classes": 0, "seed": 0}
    with pytest.raises(InputError, match=r"lower --mixture\.dimensions, or give --clusters"):
        select_mixture(X[:20], QUICK, **options)
    with pytest.raises(InputError, match=r"--clusters 50: more groups than the 20 images"):
        select_mixture(X[:20], QUICK, clusters=50, classes=0, seed=0)


def test_groups_keep_the_numbers_of_an_earlier_model():
    means = np.array([[0.0, 0], [5, 5], [9, 0]])
    names = np.array([4, 0, 7])
    assert aligned_names(means[[2, 0, 1]] + 0.1, means, names).tolist() == [7, 4, 0]
    assert aligned_names(means[:2], means, names).tolist() == [4, 0]
    with pytest.raises(ValueError, match="cannot be matched"):
        aligned_names(means, np.eye(3), names)


def test_figures_of_agreement_equal_the_reference():
    truth, clusters = GOLDEN["k_true"], GOLDEN["k_clust"]
    table = contingency(truth, clusters, 3, 4)
    np.testing.assert_array_equal(table, GOLDEN["k_contingency"])
    figures = label_figures(truth, clusters)
    wanted = {
        "nmi": "k_nmi_arith",
        "ami": "k_ami",
        "ari": "k_ari",
        "purity": "k_purity",
        "hungarian_accuracy": "k_hung_acc",
        "homogeneity": "k_homog",
        "completeness": "k_compl",
    }
    for name, key in wanted.items():
        assert figures[name] == pytest.approx(float(GOLDEN[key]), rel=1e-6), name
    assert float(GOLDEN["k_vmeas"]) == pytest.approx(figures["nmi"], rel=1e-6)
    assert float(GOLDEN["k_nmi_geom"]) != pytest.approx(figures["nmi"], rel=1e-4)
    alone = label_figures(truth, np.zeros(len(truth), dtype=int))
    assert alone["nmi"] == pytest.approx(float(GOLDEN["k_single_nmi"]), abs=1e-9)
    rows = group_rows(
        np.arange(4),
        clusters,
        np.zeros(len(truth)),
        np.zeros(len(truth), dtype=bool),
        truth,
        ["a", "b", "c"],
    )
    np.testing.assert_allclose([r["purity"] for r in rows], GOLDEN["k_cluster_purity"], rtol=1e-6)
    entropy = [r["label entropy"] for r in rows]
    np.testing.assert_allclose(entropy, GOLDEN["k_cluster_entropy"], rtol=1e-6)
    majority = ["abc"[k] for k in GOLDEN["k_cluster_major"]]
    assert [r["majority label"] for r in rows] == majority


def test_shape_figures_equal_the_reference():
    figures = shape_figures(X, GOLDEN["g_y"])
    assert figures["silhouette"] == pytest.approx(float(GOLDEN["k_silhouette_X"]), rel=1e-6)
    assert figures["davies_bouldin"] == pytest.approx(float(GOLDEN["k_db"]), rel=1e-6)
    from sklearn.metrics import silhouette_score

    cosine = silhouette_score(X, GOLDEN["g_y"], metric="cosine")
    assert cosine == pytest.approx(float(GOLDEN["k_silhouette_cos"]), rel=1e-6)
    assert shape_figures(X, np.zeros(len(X), dtype=int)) == {}


def test_without_labels_there_are_no_label_figures():
    none = np.full(5, -1)
    assert label_figures(none, np.arange(5)) == {}
    rows = group_rows(np.arange(1), none * 0, np.zeros(5), none > 0, none, [])
    assert "purity" not in rows[0]


def test_hungarian_accuracy_names_each_cluster_once():
    assert hungarian_accuracy([0, 0, 1, 1], [5, 5, 2, 2]) == 1
    assert hungarian_accuracy([0, 0, 0, 0], [0, 1, 2, 3]) == 0.25
    assert hungarian_accuracy([0, 0, 1, -1], [1, 1, 1, 0]) == pytest.approx(2 / 3)


def test_doubt_is_what_the_groups_do_not_say_for_the_label():
    table = np.array([[8, 0], [2, 5]])
    r = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    doubt = label_doubt(np.array([0, 1, 0, -1]), r, table)
    np.testing.assert_allclose(doubt, [0.2, 0.8, 0.6, np.nan])


def test_growth_has_a_row_a_group_and_date_without_untrusted_masks():
    from datetime import date

    days = [date(2024, 5, 1), date(2024, 5, 1), date(2024, 5, 2), None]
    rows = growth_rows(
        days,
        np.array([0, 0, 0, 1]),
        np.array([3, 4]),
        np.arange(8.0).reshape(4, 2),
        np.array([0.2, 0.9, 0.5, 0.1]),
        np.array([True, False, True, True]),
    )
    assert [(r["cluster"], r["date"], r["images"]) for r in rows] == [
        (3, "2024-05-01", 2),
        (3, "2024-05-02", 1),
    ]
    assert rows[0]["mask_fraction"] == pytest.approx(0.2)
    assert rows[0]["pc1"] == pytest.approx(1.0)
