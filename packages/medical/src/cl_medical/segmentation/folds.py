"""Cross-validation: patients dealt into folds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cl_core.errors import InputError
from cl_core.seeding import derive_seed
from cl_medical.segmentation.manifest import Manifest

__all__ = ["folds_of"]


def folds_of(manifest: Manifest, cv: Any, seed: int) -> list[Manifest]:
    """Deal the cases that are not `test` into folds by patient.

    A held-out case is `test` in its fold, and one further patient of each domain is `val`. With
    ``leave-one-out`` fold ``j`` holds out patient ``j`` of every domain at once; a domain with
    fewer has none to hold out in later folds.

    Raises:
        InputError: If a domain has fewer than three patients, or too few for so few folds.
    """
    patients: dict[str, list[str]] = {}
    for domain in manifest:
        own = sorted({case.patient for case in domain.cases if case.label and case.split != "test"})
        if len(own) < 3:
            raise InputError(
                f"--cv: {domain.name} has {len(own)} labelled patients that are not `test`; it "
                "needs three: one to hold out, one to choose by, one to train on"
            )
        rng = np.random.default_rng(derive_seed(seed, *domain.name.encode()))
        patients[domain.name] = [own[i] for i in rng.permutation(len(own))]
    count = max(map(len, patients.values())) if cv == "leave-one-out" else int(cv)
    for name, own in patients.items():
        left = len(own) - (1 if cv == "leave-one-out" else -(-len(own) // count))
        if left < 2:
            raise InputError(
                f"--cv {cv}: of the {len(own)} patients of {name} a fold would leave {left}; it "
                "needs one to train on and one to choose by: take more folds, or leave-one-out"
            )
    folds = []
    for j in range(count):
        domains = []
        for domain in manifest:
            own = patients[domain.name]
            held = set(own[j : j + 1]) if cv == "leave-one-out" else set(own[j::count])
            free = [patient for patient in own if patient not in held]
            chosen = free[j % len(free)]
            domains.append(
                replace(
                    domain,
                    cases=tuple(
                        replace(
                            case,
                            split="test"
                            if case.patient in held
                            else "val"
                            if case.patient == chosen
                            else "train",
                        )
                        for case in domain.cases
                        if case.label is not None and case.split != "test"
                    ),
                )
            )
        folds.append(replace(manifest, domains=tuple(domains)))
    return folds
