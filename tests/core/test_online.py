"""Online evaluation: right figures, and a training that never notices.

Run as a program, ``test_online.py OUT``, it is one of two processes.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from cl_core.config import TrainerConfig
from cl_core.errors import TrainingError
from cl_core.evaluation import extract_features, knn_accuracy, linear_probe
from cl_core.loader import make_loader
from cl_core.runs import Run
from cl_core.seeding import seed_everything
from cl_core.training import fit
from cl_core.training.online import ONLINE_RECIPE, OnlineEvaluation, OnlineKNN, OnlineProbe


class Noisy(lightning.LightningModule):
    """Dropout, batch statistics, draws of every generator, and a part in eval mode."""

    def __init__(self, rate=0.05):
        super().__init__()
        seed_everything(0)
        self.encoder = nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.RReLU(), nn.Dropout(0.3), nn.Linear(16, 8)
        )
        self.head = nn.Sequential(nn.Linear(8, 3), nn.BatchNorm1d(3, affine=False).eval())
        self.rate, self.modes = rate, []

    def training_step(self, batch, batch_idx):
        self.modes.append([part.training for part in self.modules()])
        noise = random.random() + np.random.rand() + torch.rand(())
        z = self.head(self.encoder(batch[0]))
        return (z - batch[0][:, :3] * noise).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate, momentum=0.9)


class Drawing(Noisy):
    """Draws after the callbacks too, from the generators as they leave them."""

    def on_train_epoch_end(self):
        with torch.no_grad():
            self.encoder[0].bias += 0.01 * (random.random() + np.random.rand() + torch.rand(16))


class Jittered(Dataset):
    """Labelled rows whose augmentation draws from every global generator."""

    def __init__(self, n, seed, noise=0.0):
        generator = torch.Generator().manual_seed(seed)
        self.y = torch.arange(n) % 3
        self.x = torch.eye(4)[self.y] * 3 + torch.randn(n, 4, generator=generator)
        self.noise = noise

    def __len__(self):
        return len(self.x)

    def __getitem__(self, row):
        jitter = torch.rand(4) + random.random() + float(np.random.rand())
        return self.x[row] + self.noise * jitter, self.y[row]


def loader(n=45, seed=1, noise=0.0, **options):
    return DataLoader(Jittered(n, seed, noise), batch_size=16, shuffle=True, **options)


def train(out, callbacks, epochs=5, module=None, resume=False, **config):
    module = module or Noisy()
    batches = make_loader(Jittered(40, 0), batch_size=8, shuffle=True, workers=0, seed=0)
    options = {"accelerator": "cpu", "devices": 1, "checkpoint_every": 1} | config
    trainer = TrainerConfig(progress=False, tensorboard=False, **options)
    with Run.create(out, {"rank": os.environ.get("RANK", "0")}, resume=resume) as run:
        result = fit(
            module,
            batches,
            run=run,
            epochs=epochs,
            seed=0,
            trainer=trainer,
            callbacks=callbacks,
        )
    return module, result


def watched(**options):
    return [OnlineKNN(loader(noise=1.0), loader(30, 2), k=5, **options), OnlineProbe(loader())]


def test_weights_are_bit_identical_with_and_without(tmp_path):
    alone, _ = train(tmp_path / "alone", [], module=Drawing())
    seen, result = train(tmp_path / "seen", watched(), module=Drawing())
    assert all({"online/knn_accuracy", "online/linear_accuracy"} <= set(r) for r in result.history)
    for name, value in alone.state_dict().items():
        assert torch.equal(value, seen.state_dict()[name]), name
    assert seen.modes == alone.modes
    assert not seen.modes[-1][-1]


def test_loaders_with_workers_leave_the_weights_alone_too(tmp_path):
    alone, _ = train(tmp_path / "alone", [], epochs=2, module=Drawing())
    callback = OnlineKNN(loader(noise=1.0, num_workers=1, persistent_workers=True), k=5)
    seen, _ = train(tmp_path / "seen", [callback], epochs=2, module=Drawing())
    for name, value in alone.state_dict().items():
        assert torch.equal(value, seen.state_dict()[name]), name


def test_the_figures_are_those_of_the_frozen_encoder(tmp_path):
    bank, test = loader(45, 1), loader(30, 2)
    module, result = train(
        tmp_path,
        [OnlineKNN(bank, test, k=7), OnlineKNN(bank, k=3, name="alone"), OnlineProbe(bank, test)],
    )
    x, y = extract_features(module.encoder, DataLoader(Jittered(45, 1), batch_size=45))
    x_test, y_test = extract_features(module.encoder, DataLoader(Jittered(30, 2), batch_size=30))
    row = result.history[-1]
    assert row["online/knn_accuracy"] == pytest.approx(knn_accuracy(x_test, y_test, x, y, k=7))
    assert row["alone"] == pytest.approx(knn_accuracy(x, y, k=3))
    probe = linear_probe(x, y, x_test, y_test, recipe=ONLINE_RECIPE, normalize=True)
    # Of the same rows in another order: one test row of 30 may differ.
    assert row["online/linear_accuracy"] == pytest.approx(probe.accuracy, abs=0.034)
    assert row["online/linear_accuracy"] > 0.6


def test_every_third_epoch_and_the_last_are_evaluated_and_no_other(tmp_path):
    _, result = train(tmp_path, watched(every=3), epochs=5)
    epochs = [row["epoch"] for row in result.history if "online/knn_accuracy" in row]
    assert epochs == [3, 5]
    assert all("online/linear_accuracy" in row for row in result.history)


def test_a_resumed_run_has_the_figures_of_the_whole(tmp_path):
    _, whole = train(tmp_path / "whole", watched(every=2), epochs=4)

    class Stop(lightning.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 3:
                raise TrainingError("stopped")

    with pytest.raises(TrainingError):
        train(tmp_path / "parts", [*watched(every=2), Stop()], epochs=4)
    _, parts = train(tmp_path / "parts", watched(every=2), epochs=4, resume=True)
    names = ("epoch", "train/loss", "online/knn_accuracy", "online/linear_accuracy")
    rows = [[[row.get(n) for n in names] for row in r.history] for r in (whole, parts)]
    assert rows[0] == rows[1]


def test_the_encoder_is_run_without_gradient_in_eval_mode_at_the_runs_precision(tmp_path):
    seen = []

    def encode(module, batch):
        h = module.encoder(batch[0])
        parts = any(part.training for part in module.modules())
        seen.append((h.dtype, h.requires_grad, torch.is_grad_enabled(), parts))
        return h, batch[1]

    def rows(x, y, x_test, y_test):
        assert x_test is None
        return float(len(x))

    online = OnlineEvaluation(loader(), measures={"rows": rows}, encode=encode)
    _, result = train(tmp_path / "mixed", [online], epochs=1, precision="bf16-mixed")
    assert result.history[0]["rows"] == 45
    _, _ = train(tmp_path / "double", [online], epochs=1, precision="64-true")
    assert seen[:3] == [(torch.bfloat16, False, False, False)] * 3
    assert seen[3:] == [(torch.float64, False, False, False)] * 3


def test_features_that_are_not_finite_leave_the_word_to_the_training(tmp_path):
    def encode(module, batch):
        return module.encoder(batch[0]) * float("nan"), batch[1]

    _, result = train(tmp_path, [OnlineProbe(loader(), encode=encode)], epochs=1)
    assert "online/linear_accuracy" not in result.history[0]


def test_a_module_without_an_encoder_is_itself_the_encoder(tmp_path):
    class Bare(Noisy):
        def __init__(self):
            super().__init__()
            self.net = self.encoder
            del self.encoder

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            return self(batch[0]).square().mean()

    module, result = train(tmp_path, [OnlineKNN(loader(), k=3)], epochs=1, module=Bare())
    x, y = extract_features(module.net, loader())
    assert result.history[0]["online/knn_accuracy"] == pytest.approx(knn_accuracy(x, y, k=3))


def test_what_cannot_be_watched_is_refused(tmp_path):
    with pytest.raises(ValueError, match="every must be at least 1 epoch, got 0"):
        OnlineKNN(loader(), every=0)
    with pytest.raises(ValueError, match="gives no batch"):
        train(tmp_path, [OnlineKNN([])], epochs=1)


@pytest.mark.slow
def test_two_processes_agree_on_the_figure_and_on_the_weights(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*command, __file__, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in ("0", "1", "no")]
    assert states[0]["figure"] == states[1]["figure"] is not None
    for name in states[0]:
        if "weight" in name:
            assert torch.equal(states[0][name], states[1][name])
            assert torch.equal(states[0][name], states[2][name])
    last = Run.open(tmp_path / "two").history.rows()[-1]
    assert last["online/knn_accuracy"] == states[0]["figure"]


if __name__ == "__main__":
    out, rank = Path(sys.argv[1]), os.environ["RANK"]
    plain, _ = train(out / "plain", [], epochs=2, devices=2, strategy="ddp")
    if rank == "0":
        torch.save(plain.state_dict(), out / "no.pt")
    module, result = train(out / "two", watched(), epochs=2, devices=2, strategy="ddp")
    figure = float(module.trainer.callback_metrics["online/knn_accuracy"])
    torch.save(module.state_dict() | {"figure": figure}, out / f"{rank}.pt")
