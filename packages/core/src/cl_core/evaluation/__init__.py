"""What is measured on frozen embeddings; names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "C_GRID": "probe",
    "LogisticModel": "probe",
    "fit_logistic": "probe",
    "random_splits": "probe",
    "knn_accuracy": "knn",
    "knn_predict": "knn",
    "knn_votes": "knn",
    "cluster_scores": "clustering",
    "kmeans_scores": "clustering",
    "hungarian_accuracy": "clustering",
    "purity": "clustering",
    "effective_rank": "spectrum",
    "feature_std": "spectrum",
    "singular_values": "spectrum",
    "project_2d": "projection",
    "extract_features": "features",
    "SGDSettings": "sgd",
    "SGDResult": "sgd",
    "DIRECTCLR_PROBE": "linear",
    "HCSC_PROBE": "linear",
    "MOCO_PROBE": "linear",
    "linear_probe": "linear",
    "logistic_accuracy": "linear",
    "probe_encoder": "linear",
    "SEMI_SETTINGS": "finetune",
    "fine_tune": "finetune",
    "FractionResult": "fraction",
    "fraction_protocol": "fraction",
    "fraction_rows": "fraction",
    "logistic_fractions": "fraction",
    "retrieval_scores": "retrieval",
    "ReliabilityBins": "calibration",
    "brier_score": "calibration",
    "expected_calibration_error": "calibration",
    "fit_temperature": "calibration",
    "reliability_bins": "calibration",
    "bootstrap_interval": "bootstrap",
    "bootstrap_intervals": "bootstrap",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
