"""Cross-validation: every patient held out once, nobody on both sides."""

import json
from collections import Counter
from pathlib import Path

import pytest
from volume_files import TINY, domain, manifest

from cl_core.errors import InputError
from cl_medical.cli import main
from cl_medical.segmentation.folds import folds_of
from cl_medical.segmentation.manifest import Case, Domain, Manifest


def dealt(sizes, patients=None):
    domains = tuple(
        Domain(
            name=name,
            classes=("bg", "x"),
            label_map={0: 0, 1: 1},
            cases=tuple(
                Case(
                    name=f"{name}{n}",
                    images=(Path(f"{name}{n}.nii"),),
                    label=Path("l.nii"),
                    patient=f"p{n // (patients or 1)}",
                )
                for n in range(count)
            ),
        )
        for name, count in sizes.items()
    )
    return Manifest(source="memory", domains=domains)


@pytest.mark.parametrize("cv", [3, "leave-one-out"])
def test_every_patient_is_held_out_once_and_nobody_is_on_both_sides(cv):
    folds = folds_of(dealt({"a": 10, "b": 6}, patients=2), cv, seed=3)
    assert len(folds) == (3 if cv == 3 else 5)
    held = Counter(
        (domain.name, case.name)
        for fold in folds
        for domain in fold
        for case in domain.of_split("test")
    )
    assert len(held) == 16
    assert set(held.values()) == {1}
    for fold in folds:
        for own in fold:
            sides = {}
            for case in own.cases:
                sides.setdefault(case.patient, set()).add(case.split)
            assert all(len(splits) == 1 for splits in sides.values())
            assert len({c.patient for c in own.of_split("val")}) == 1
            assert own.of_split("train")
    if cv == "leave-one-out":  # a fold holds out one patient of each domain that has one left
        counts = [[len({c.patient for c in d.of_split("test")}) for d in fold] for fold in folds]
        assert counts == [[1, 1], [1, 1], [1, 1], [1, 0], [1, 0]]


def test_too_few_patients_are_refused_before_anything_is_trained():
    with pytest.raises(InputError, match="of the 3 patients of b a fold would leave 1"):
        folds_of(dealt({"a": 4, "b": 3}), 2, seed=0)
    with pytest.raises(InputError, match="b has 2 labelled patients"):
        folds_of(dealt({"a": 4, "b": 2}), 2, seed=0)


def test_a_cross_validation_scores_every_case_that_is_not_test(tmp_path):
    knee = domain(tmp_path, "knee", axes="RAS", raw=(1,), classes=("femur",), bright=100)
    hand = domain(tmp_path, "hand", axes="LPS", raw=(7,), classes=("bone",), bright=50, cases=5)
    data = manifest(tmp_path, knee=knee, hand=hand)
    words = ["--data", data, "--out", tmp_path / "run", "--cv", "leave-one-out"]
    tiny = [word if word != "2" else "1" for word in TINY]
    assert main(["segment", "train", *map(str, words), *tiny]) == 0
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]
    assert record["knee/femur/n"] == 3
    assert record["hand/bone/n"] == 3  # its fourth and fifth case are `test`
    rows = (tmp_path / "run" / "cases.csv").read_text().splitlines()
    assert sum("fold 1" in row for row in rows) == 2
    assert not any(f"{name}3" in row for row in rows for name in ("knee", "hand"))
