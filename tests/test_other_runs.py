"""A run of another package or verb ends in one line and exit code 2, whatever is done with it."""

from __future__ import annotations

import json
from importlib import import_module

import pytest
import torch
from safetensors.torch import save_file

from cl_core.runs.folder import MARK

KINDS = {
    "cl-graphs": "node encoder",
    "cl-vision": "image encoder with projector",
    "cl-remote-sensing": "segmentation",
    "cl-remote-sensing, pretrained": "pretrained",
    "of nobody": "oracle",
}

# A verb that takes a run, with what else it asks for.
VERBS = [
    ("cl-graphs", "evaluate", ()),
    ("cl-graphs", "embed", ()),
    ("cl-graphs", "robustness", ()),
    ("cl-vision", "evaluate", ("--data", "digits")),
    ("cl-vision", "embed", ("--data", "digits")),
    ("cl-vision", "spectrum", ("--data", "digits")),
    ("cl-vision", "assess", ()),
    ("cl-remote-sensing", "evaluate", ()),
    ("cl-remote-sensing", "predict", ("--data", "absent.tif", "--out", "OUT")),
    ("cl-medical", "lesions evaluate", ()),
    ("cl-medical", "lesions predict", ("--data", "absent", "--out", "OUT")),
    ("cl-medical", "segment evaluate", ()),
    ("cl-medical", "segment embed", ()),
    ("cl-medical", "segment extend", ("--data", "absent", "--out", "OUT")),
    ("cl-medical", "segment predict", ("--data", "absent", "--out", "OUT")),
    ("cl-agriculture", "embed", ()),
    ("cl-agriculture", "cluster", ()),
    ("cl-agriculture", "explore", ()),
    ("cl-agriculture", "score", ("--data", "absent", "--out", "OUT")),
]


@pytest.mark.parametrize(
    ("program", "verb", "more", "kind"),
    [(*verb, kind) for verb in VERBS for kind in KINDS if not kind.startswith(verb[0])],
    ids=str,
)
def test_it_is_refused_and_nothing_is_written(tmp_path, capsys, program, verb, more, kind):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(f"{MARK}data: digits\nroot: null\n")
    (run / "model.json").write_text(json.dumps({"kind": KINDS[kind], "weights_sha256": "0"}))
    save_file({"w": torch.zeros(1)}, run / "model.safetensors")
    before = sorted(path.name for path in run.iterdir())
    main = import_module(f"{program.replace('-', '_')}.cli").main
    out = str(tmp_path / "out")
    words = [*verb.split(), "--run", str(run), *(out if word == "OUT" else word for word in more)]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"{program}: ")
    assert told.count("\n") == 1, told
    assert sorted(path.name for path in run.iterdir()) == before
    assert not (tmp_path / "out").exists()
