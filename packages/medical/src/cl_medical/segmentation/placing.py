"""The verb `embed`: where the cases of a manifest lie in the shared representation of a run."""

from __future__ import annotations

import numpy as np
import torch

from cl_core.commands.outcome import Outcome, out_of
from cl_core.errors import InputError
from cl_core.runs import Run
from cl_core.runs.vectors import write_vectors
from cl_medical.segmentation import pages
from cl_medical.segmentation.config import EmbedConfig
from cl_medical.segmentation.embedding import DomainPoints, embedded
from cl_medical.segmentation.prediction import patches_of_case
from cl_medical.segmentation.reading import MANIFEST, open_manifest
from cl_medical.segmentation.saved import SavedModel

__all__ = ["embed_run"]


def embed_run(config: EmbedConfig) -> Outcome:
    """Embed patches of cases, each by its own domain's norms.

    Returns:
        ``rows`` and ``dimensions`` of what was written, ``domain_silhouette``, and ``failed``: the
        cases that could not be read, with which the command ends with exit code 1.

    Raises:
        InputError: If there is no such run, it has a network a domain, or no case can be embedded.
    """
    model = SavedModel.load(config.run)
    if len(model.networks.members) > 1:
        raise InputError(
            f"--run {config.run}: the run has a network a domain, which share no representation"
        )
    source = config.data if config.data is not None else str(config.run / MANIFEST)
    manifest = open_manifest(source, config.domains)
    names = [card.name for card in model.card.domains]
    network = model.networks.of_domain(names[0])
    vectors, cases, splits, numbers, failures = [], [], [], [], []
    with Run.create(out_of(config, "embed"), config, overwrite=config.overwrite) as run:
        for domain in manifest:
            card = model.card.of_domain(domain.name, "--data")
            for case in domain.cases:
                if config.split not in ("all", case.split):
                    continue
                try:
                    model.card.require_images(card, case.images)
                    patches = patches_of_case(model, card, case)
                except InputError as error:
                    failures.append(f"{domain.name}/{case.name}: {error}")
                    continue
                vectors.append(embedded(network, patches, domain.name))
                cases += [case.name] * len(patches)
                splits += [case.split or ""] * len(patches)
                numbers += [names.index(domain.name)] * len(patches)
        if not vectors:
            raise InputError("; ".join(failures) or f"--split {config.split}: there is no case")
        rows = torch.cat(vectors)
        points = DomainPoints(rows.numpy(), np.array(numbers), tuple(cases))
        about = {"case": cases, "domain": [names[k] for k in numbers], "split": splits}
        files = write_vectors(run, rows, about, format=config.format)
        metrics = {
            "rows": float(len(rows)),
            "dimensions": float(rows.shape[1]),
            "domain_silhouette": points.silhouette(),
            "failed": float(len(failures)),
        }
        pages.embedding_page(run, metrics, points, names, failures)
        run.save_metrics(metrics)
    lines = [f"{len(rows):,} patches, {rows.shape[1]} dimensions"]
    lines += [f"silhouette of the domains {metrics['domain_silhouette']:.3f}"]
    lines += [f"not embedded: {failure}" for failure in failures]
    return Outcome(
        out=run.path,
        metrics=metrics,
        lines=lines,
        files=(*files, "report.html"),
        code=1 if failures else 0,
    )
