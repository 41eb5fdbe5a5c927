"""The probe against scikit-learn's liblinear under the published protocol."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import OneHotEncoder, normalize

from cl_core.evaluation import fit_logistic
from cl_core.evaluation.logistic import solve_logistic
from cl_graphs.evaluation.protocol import logistic_probe


def blobs(n, d, classes, seed, spread=1.0):
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    return rng.normal(size=(classes, d))[y] + spread * rng.normal(size=(n, d)), y


def official(x, y, train, grid):
    """GRACE's evaluation in scikit-learn's words, liblinear driven to its optimum."""
    one_hot = OneHotEncoder().fit_transform(y[:, None]).toarray().astype(bool)
    rows = normalize(x)
    logistic = LogisticRegression(solver="liblinear", tol=1e-10, max_iter=10_000)
    search = GridSearchCV(OneVsRestClassifier(logistic), {"estimator__C": grid}, cv=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class that a fold misses
        search.fit(rows[train], one_hot[train])
    return search.predict_proba(rows), search.best_params_["estimator__C"]


@pytest.mark.parametrize(("n", "d"), [(60, 5), (25, 60)])
@pytest.mark.parametrize("c", [2.0**-10, 1.0, 2.0**9])
def test_the_solver_reaches_the_optimum_of_liblinear(n, d, c):
    x, y = blobs(n, d, 3, seed=0)
    targets = torch.tensor(y[:, None] == np.arange(3))
    weight, bias = solve_logistic(torch.tensor(x), targets, torch.full((3,), c))
    for j in range(3):
        peer = LogisticRegression(solver="liblinear", C=c, tol=1e-10, max_iter=10_000)
        peer.fit(x, targets[:, j].numpy())
        scale = np.abs(peer.coef_).max()
        np.testing.assert_allclose(weight[:, j], peer.coef_[0], atol=1e-5 * scale)
        np.testing.assert_allclose(bias[j], peer.intercept_[0], atol=1e-5 * scale)


def test_problems_solved_together_are_those_solved_alone():
    x, y = blobs(40, 6, 3, seed=1)
    targets = torch.tensor(y[:, None] == np.arange(3)).repeat(1, 3)
    c = torch.tensor([0.01, 1.0, 100.0], dtype=torch.float64).repeat_interleave(3)
    together = solve_logistic(torch.tensor(x), targets, c)[0]
    for j in range(9):
        alone = solve_logistic(torch.tensor(x), targets[:, [j]], c[[j]])[0]
        torch.testing.assert_close(together[:, [j]], alone, rtol=1e-6, atol=1e-8)


def test_the_gradient_vanishes_even_for_separable_rows_of_equal_direction():
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0], [-1.0, -2.0], [0.0, 0.0]], dtype=torch.float64)
    targets = torch.tensor([[True], [True], [False], [False]])
    w, b = solve_logistic(x, targets, torch.tensor([1000.0]))
    residual = 1000.0 * (torch.sigmoid(x @ w + b) - targets.double())
    assert torch.allclose(w + x.T @ residual, torch.zeros(2, 1).double(), atol=1e-4)
    assert torch.allclose(b + residual.sum(), torch.zeros(1).double(), atol=1e-4)


@pytest.mark.parametrize(("d", "seed"), [(8, 0), (90, 1)])
def test_the_model_is_that_of_the_official_evaluation(d, seed):
    x, y = blobs(240, d, 4, seed, spread=2.0)
    train = np.random.default_rng(seed).permutation(240)[:57]  # folds of 12, 12, 11, 11, 11
    grid = 2.0 ** np.arange(-10, 10, 2)
    expected, c = official(x, y, train, grid)
    model = fit_logistic(x, y, train, cs=grid.tolist())
    assert model.c == c
    np.testing.assert_allclose(model.predict_proba(x), expected, atol=1e-6)
    np.testing.assert_array_equal(model.predict(x), expected.argmax(axis=1))


def test_the_splits_and_scores_are_those_of_scikit_learn():
    x, y = blobs(150, 4, 3, seed=2, spread=1.5)
    grid = [0.25, 4.0, 64.0]
    result = logistic_probe(x, y, splits=3, train_fraction=0.3, seed=5, cs=grid)
    accuracies, f1s = [], []
    shuffle = ShuffleSplit(3, test_size=0.7, random_state=5)
    for train, test in shuffle.split(x):
        predicted = official(x, y, train, grid)[0][test].argmax(axis=1)
        accuracies.append((predicted == y[test]).mean())
        f1s.append(f1_score(y[test], predicted, average="macro"))
    assert result.accuracies == pytest.approx(accuracies)
    assert result.metrics() == pytest.approx(
        {
            "accuracy": np.mean(accuracies),
            "accuracy_std": np.std(accuracies),
            "macro_f1": np.mean(f1s),
            "macro_f1_std": np.std(f1s),
        }
    )


def test_a_longer_series_begins_with_the_shorter_one():
    x, y = blobs(80, 4, 2, seed=3)
    options = {"cs": [1.0], "train_fraction": 0.2, "seed": 1}
    short, long = (logistic_probe(x, y, splits=s, **options) for s in (2, 4))
    assert long.accuracies[:2] == short.accuracies
    assert logistic_probe(x, y, splits=2, **{**options, "seed": 2}).accuracies != short.accuracies


def test_the_test_part_has_no_say_in_the_model():
    x, y = blobs(100, 4, 3, seed=4, spread=2.0)
    train, test = np.arange(40), np.arange(40, 100)
    model = fit_logistic(x, y, train)
    changed = y.copy()
    changed[test] = 2 - changed[test]
    moved = x.copy()
    moved[test] = 0.0
    other = fit_logistic(moved, changed, train)
    assert other.c == model.c
    assert torch.equal(other.weight, model.weight)


def test_a_probe_trained_on_clean_rows_applies_to_perturbed_ones():
    x, y = blobs(60, 5, 3, seed=5, spread=0.3)
    model = fit_logistic(torch.tensor(x, dtype=torch.float32), y, cs=[10.0])
    assert (model.predict(x) == y).mean() > 0.95
    np.testing.assert_allclose(model.predict_proba(5 * x), model.predict_proba(x), atol=1e-5)
    assert (model.predict(-x) == y).mean() < 0.5


def test_a_class_that_training_or_a_fold_misses_is_never_predicted_and_never_fatal():
    x, y = blobs(60, 5, 2, seed=6)
    y[-1] = 2  # only in the test part
    y[0] = 3  # one training row: four folds have it, one does not
    model = fit_logistic(x, y, np.arange(50))
    assert model.classes.tolist() == [0, 1, 2, 3]
    probability = model.predict_proba(x)
    assert (probability[:, 2] == 0).all()
    assert np.isfinite(probability).all()
    assert 0 < logistic_probe(x, y, splits=4).accuracy < 1


def test_training_rows_of_one_class_predict_that_class():
    x, y = blobs(30, 3, 2, seed=7)
    only = np.flatnonzero(y == 1)[:6]
    assert (fit_logistic(x, y, only).predict(x) == 1).all()


def test_constant_embeddings_predict_the_majority():
    y = np.array([0] * 30 + [1] * 70)
    result = logistic_probe(np.ones((100, 4)), y, splits=5, train_fraction=0.5)
    assert result.accuracy == pytest.approx(0.7, abs=0.08)


def test_subset_and_argmax_may_choose_another_c():
    x, y = blobs(120, 3, 6, seed=8, spread=1.2)
    chosen = {s: fit_logistic(x, y, selection=s).c for s in ("subset", "argmax")}
    assert chosen["subset"] != chosen["argmax"]


def test_rows_labelled_minus_one_or_nan_are_left_out():
    x, y = blobs(80, 4, 2, seed=9)
    options = {"splits": 3, "cs": [1.0], "train_fraction": 0.25}
    expected = logistic_probe(x[:60], y[:60], **options)
    hidden = np.r_[y[:60], -np.ones(20, dtype=int)]
    assert logistic_probe(x, hidden, **options) == expected
    missing = np.r_[y[:60].astype(float), np.full(20, np.nan)]
    assert logistic_probe(x, missing, **options) == expected
    assert fit_logistic(x, hidden).classes.tolist() == [0, 1]


def test_a_boolean_mask_means_its_rows():
    x, y = blobs(40, 3, 2, seed=10)
    mask = np.arange(40) < 20
    by_mask, by_index = fit_logistic(x, y, mask), fit_logistic(x, y, np.arange(20))
    assert torch.equal(by_mask.weight, by_index.weight)
    assert torch.equal(fit_logistic(x, y, torch.tensor(mask)).weight, by_index.weight)


def test_text_labels_come_back_as_text():
    x, y = blobs(40, 3, 2, seed=11, spread=0.1)
    names = np.array(["cat", "dog"])[y]
    assert (fit_logistic(x, names).predict(x) == names).all()


def test_a_stratified_split_trains_on_every_class():
    rng = np.random.default_rng(12)
    y = np.array([0] * 180 + [1] * 20 + [2] * 3)
    x = np.eye(3)[y] + 0.01 * rng.normal(size=(203, 3))
    result = logistic_probe(x, y, splits=5, train_fraction=0.1, stratified=True, cs=[1000.0])
    assert result.macro_f1 == 1.0
    assert len(set(result.cs)) == 1


def test_the_number_of_threads_is_left_as_it_was():
    x, y = blobs(30, 3, 2, seed=13)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fit_logistic(x, y, cs=[1.0])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.ones((6, 2)), [0] * 6, {}, "at least 2 classes among the labelled rows"),
        (np.ones((6, 2)), [0, -1, -1, -1, -1, -1], {}, "at least 2 classes"),
        (np.ones((6, 2)), [0, 1], {}, "one label a row"),
        (np.ones(6), [0, 1] * 3, {}, "rows of a matrix"),
        (np.full((6, 2), np.nan), [0, 1] * 3, {}, "finite; row 0"),
        (np.ones((6, 2)), [0, 1] * 3, {"splits": 0}, "splits must be at least 1"),
        (np.ones((6, 2)), [0, 1] * 3, {"train_fraction": 1.0}, "between 0 and 1"),
        (np.ones((6, 2)), [0, 1] * 3, {"train_fraction": 0.1}, "less than 2 training rows"),
        (np.ones((2, 2)), [0, 1], {"stratified": True}, "no test part"),
        (np.ones((20, 2)), [0, 1] * 10, {"train_fraction": 0.5, "folds": 1}, "folds must be"),
        (np.ones((20, 2)), [0, 1] * 10, {"train_fraction": 0.5, "cs": []}, "cs must hold"),
        (np.ones((20, 2)), [0, 1] * 10, {"train_fraction": 0.5, "cs": [0.0]}, "c must be positive"),
    ],
)
def test_what_cannot_be_probed_is_refused(x, y, options, message):
    with pytest.raises(ValueError, match=message):
        logistic_probe(x, y, **options)


def test_an_unknown_selection_is_refused():
    x, y = blobs(30, 3, 2, seed=14)
    with pytest.raises((ValueError, TypeError), match="argmax"):  # TypeError: beartype was faster
        fit_logistic(x, y, selection="f1")
