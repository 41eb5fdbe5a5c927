"""Collapse spectra: golden arrays, the three spaces, figures, and the monitor of a training."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from cl_core.config import TrainerConfig
from cl_core.evaluation import effective_rank, singular_values
from cl_core.images import Sample
from cl_core.loader import make_loader
from cl_core.runs import Run
from cl_core.seeding import seed_everything
from cl_core.training import fit
from cl_vision.collapse.monitor import CollapseMonitor, monitor_figure, read_snapshots
from cl_vision.collapse.spectrum import (
    Spectrum,
    log_spectrum,
    parts,
    spectra,
    spectrum,
    spectrum_figure,
    spectrum_table,
)
from cl_vision.hyper import DirectCLRHyper, OptimizerHyper
from cl_vision.methods.directclr import DirectCLR
from cl_vision.methods.projectors import FirstChannels, build_projector

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "directclr.npz", allow_pickle=False)


def golden(name):
    return torch.from_numpy(GOLDEN[name])


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("case", ["full", "low"])
def test_the_spectrum_equals_the_official_script(case):
    z = golden(f"{case}__z")
    measured = spectrum(z, case)
    expected = golden(f"{case}__sv_normalized")
    floor = 1e-12 * float(expected.max())
    torch.testing.assert_close(
        torch.tensor(measured.values, dtype=torch.float64), expected, rtol=1e-9, atol=floor
    )
    raw = golden(f"{case}__sv_raw")
    torch.testing.assert_close(
        singular_values(z, normalize=False), raw, rtol=1e-9, atol=1e-12 * float(raw.max())
    )
    rank = float(GOLDEN[f"{case}__effective_rank"])
    assert measured.effective_rank == pytest.approx(rank, rel=1e-9)
    assert effective_rank(z) == pytest.approx(rank, rel=1e-9)
    assert measured.alive == int(GOLDEN[f"{case}__n_above_1e-3"])
    # `cov` is that of unit rows, and the raw rows have the rank they were made with.
    torch.testing.assert_close(
        torch.linalg.eigvalsh(golden(f"{case}__cov")).flip(0).clamp_min(0),
        expected,
        rtol=1e-9,
        atol=floor,
    )
    assert int((raw > 1e-9 * raw[0]).sum()) == int(GOLDEN[f"{case}__true_rank"])


def test_logarithms_are_natural_and_floored():
    x = draw(50, 4)
    x[:, 3] = 0.0
    logs = log_spectrum(x)
    torch.testing.assert_close(logs[:3], singular_values(x)[:3].log())
    assert logs[3].item() == pytest.approx(math.log(1e-30))
    np.testing.assert_allclose(spectrum(x).logs, logs.numpy())


def test_features_that_are_one_point_have_rank_zero():
    assert spectrum(torch.ones(10, 1).double() @ draw(1, 5)).effective_rank == 0.0


def test_too_few_images_are_told():
    assert spectrum(draw(9, 8), "r").note is None
    note = spectrum(draw(8, 8), "r").note
    assert note is not None
    assert "r: 8 images for 8 dimensions; at most 7 singular values" in note


def test_spaces_are_told_apart():
    r = draw(30, 6)
    assert list(parts(r)) == ["r"]
    spaces = parts(r, FirstChannels(6, 2))
    assert list(spaces) == ["r", "z", "r[2:]"]
    assert torch.equal(spaces["z"], r[:, :2])
    assert torch.equal(spaces["r[2:]"], r[:, 2:])
    assert list(parts(r, FirstChannels(6, 6))) == ["r", "z"]
    assert [s.name for s in spectra(r, FirstChannels(6, 2), name="a run")] == [
        "a run r",
        "a run z",
        "a run r[2:]",
    ]


def test_the_projector_is_applied_in_eval_mode_and_left_as_it_was():
    projector = build_projector("mlp", 6, hidden=8, dim=3).double().train()
    before = {name: value.clone() for name, value in projector.state_dict().items()}
    r = draw(30, 6)
    z = parts(r, projector, batch_size=7)["z"]
    assert projector.training
    for name, value in projector.state_dict().items():
        assert torch.equal(value, before[name])  # running statistics among them
    assert not z.requires_grad
    torch.testing.assert_close(z, projector.eval()(r).detach())


def test_a_low_rank_projector_shows_in_z_and_not_in_r():
    r, z = spectra(draw(200, 12).float(), build_projector("low_rank", 12, rank=4))
    assert r.effective_rank > 11
    assert (z.width, r.width) == (4, 12)


def test_runs_share_a_plot_with_a_colour_a_run_and_a_line_style_a_space():
    measured = [
        spectrum(draw(40, 6, seed=seed), name)
        for seed, name in enumerate(["a r", "a z", "b r", "b r[2:]"])
    ]
    figure = spectrum_figure(measured)
    lines = figure.axes[0].get_lines()
    colours = [line.get_color() for line in lines]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert [line.get_linestyle() for line in lines] == ["-", "--", "-", ":"]
    np.testing.assert_allclose(lines[2].get_ydata(), measured[2].logs)
    relative = spectrum_figure(measured, relative=True).axes[0].get_lines()
    np.testing.assert_allclose(relative[2].get_ydata(), measured[2].logs - measured[2].logs[0])
    with pytest.raises(ValueError, match="no spectrum"):
        spectrum_figure([])


def test_the_table_has_a_row_a_spectrum():
    (row,) = spectrum_table([Spectrum("a r", (4.0, 2.0, 1e-3), 50)])
    p = np.array([4.0, 2.0, 1e-3]) / 6.001
    assert row["effective rank"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), abs=0.005)
    assert row["values above 0.001 of the largest"] == 2
    assert (row["width"], row["images"]) == (3, 50)


# the monitor


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 40), nn.BatchNorm1d(40), nn.Dropout(0.1))
        self.out_features = 40

    def forward(self, x):
        return self.layers(x.flatten(1))


class Interrupt(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 3:
            raise KeyboardInterrupt


def train(folder, *, monitor=True, resume=False, callbacks=()):
    seed_everything(0)
    with pytest.warns(UserWarning, match="does not end in a residual block"):
        module = DirectCLR(
            Encoder(), DirectCLRHyper(d0=16), optimizer=OptimizerHyper(learning_rate=0.05)
        )
    images = draw(96, 1, 4, 4).float()

    def noisy(image):
        return image + 0.3 * torch.randn_like(image)

    rows = [Sample((noisy(x), noisy(x)), -1, row) for row, x in enumerate(images)]
    loader = make_loader(rows, batch_size=32, shuffle=True, workers=0, seed=0)
    plain = [(images, torch.full((96,), -1))]
    quiet = TrainerConfig(
        accelerator="cpu", devices=1, progress=False, tensorboard=False, checkpoint_every=1
    )
    with Run.create(folder, {"any": 1}, resume=resume) as run:
        watch = [CollapseMonitor(plain, run=run, every=2, rows=80)] if monitor else []
        result = fit(
            module,
            loader,
            run=run,
            epochs=5,
            seed=0,
            trainer=quiet,
            callbacks=[*watch, *callbacks],
        )
    return module, result, images


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("monitor") / "run"
    return (*train(folder), folder)


def test_the_monitor_writes_the_spectra_of_r_z_and_the_unseen_channels(watched):
    module, result, images, folder = watched
    snapshots = read_snapshots(folder / "spectrum.csv")
    assert [(one.epoch, one.space) for one in snapshots] == [
        (epoch, space) for epoch in (2, 4, 5) for space in ("r", "z", "r[16:]")
    ]
    module.eval()
    r = module.encoder(images[:80]).detach()
    for one, part in zip(snapshots[-3:], (r, r[:, :16], r[:, 16:]), strict=True):
        np.testing.assert_allclose(one.logs, log_spectrum(part).numpy(), rtol=1e-4)
    last = result.history[-1]
    assert last["r/effective_rank"] == pytest.approx(effective_rank(r), rel=1e-4)
    assert last["z/effective_rank"] == pytest.approx(effective_rank(r[:, :16]), rel=1e-4)
    assert last["r_unseen/effective_rank"] == pytest.approx(effective_rank(r[:, 16:]), rel=1e-4)
    assert "r/effective_rank" not in result.history[0]
    with (folder / "spectrum.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert list(first) == ["epoch", "space", "rank", "ln_singular_value"]


def test_watching_leaves_the_training_as_it_is(watched, tmp_path):
    plain, _, _ = train(tmp_path / "run", monitor=False)
    for ours, theirs in zip(watched[0].parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_resumed_run_has_the_spectra_of_the_uninterrupted_one(watched, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", callbacks=[Interrupt()])
    train(tmp_path / "run", resume=True)
    whole = (watched[-1] / "spectrum.csv").read_text()
    assert (tmp_path / "run" / "spectrum.csv").read_text() == whole


def test_the_monitors_figure_has_a_panel_a_space(watched):
    figure = monitor_figure(read_snapshots(watched[-1] / "spectrum.csv"))
    assert [axes.get_title("left") for axes in figure.axes] == ["r", "z", "r[16:]"]
    assert [len(axes.get_lines()) for axes in figure.axes] == [3, 3, 3]
    with pytest.raises(ValueError, match="no snapshot"):
        monitor_figure([])


def test_a_monitor_of_one_row_or_no_epoch_is_refused(tmp_path):
    with Run.create(tmp_path / "run", {"any": 1}) as run:
        with pytest.raises(ValueError, match="rows must be at least 2"):
            CollapseMonitor([], run=run, rows=1)
        with pytest.raises(ValueError, match="every must be at least 1"):
            CollapseMonitor([], run=run, every=0)
