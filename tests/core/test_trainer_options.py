"""Loggers, accumulation, endings, compilation and data modules of the one training loop."""

from __future__ import annotations

import shutil
from importlib.util import find_spec

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cl_core.config import TrainerConfig
from cl_core.errors import InputError
from cl_core.loader import make_loader
from cl_core.runs import Run
from cl_core.seeding import seed_everything
from cl_core.training import fit


class Regression(lightning.LightningModule):
    """Fits a linear map; logs what ``figures`` gives at each epoch's end."""

    def __init__(self, figures=()):
        super().__init__()
        seed_everything(0)
        self.net = nn.Linear(4, 3)
        self.figures = list(figures)
        self.compiled = False

    def training_step(self, batch, batch_idx):
        self.compiled |= self.net._compiled_call_impl is not None
        return (self.net(batch[0]) - batch[1]).square().mean()

    def on_train_epoch_end(self):
        if self.figures:
            self.log("val/score", self.figures[self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def data():
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, x[:, :3] * 2)


def train(out, module=None, *, epochs=3, batch=5, loader=None, resume=False, **options):
    trainer = TrainerConfig(**{"progress": False, "tensorboard": False, **options})
    module = module or Regression()
    if loader is None:
        loader = make_loader(data(), batch_size=batch, shuffle=False, workers=0, seed=0)
    with Run.create(out, {"epochs": epochs}, resume=resume) as run:
        result = fit(module, loader, run=run, epochs=epochs, seed=0, trainer=trainer, resume=resume)
    return module, result


def test_accumulated_batches_make_the_step_of_the_whole_batch(tmp_path):
    parts, _ = train(tmp_path / "parts", accumulate_grad_batches=4)
    whole, _ = train(tmp_path / "whole", batch=20)
    torch.testing.assert_close(parts.net.weight, whole.net.weight)
    with pytest.raises(InputError, match="accumulate_grad_batches is 2 but was 4"):
        train(tmp_path / "parts", epochs=4, resume=True, accumulate_grad_batches=2)


@pytest.mark.parametrize(
    ("figure", "mode", "figures", "epochs"),
    [
        ("val/score", "auto", [1, 2, 1.5, 2, 3, 4], 4),  # more is better; a tie is not
        ("val/score", "min", [5, 4, 3, 4, 4, 4], 5),
        ("val/score", "max", [1, 2, 3, 4, 5, 6], 6),
        ("train/loss", "auto", [], 6),  # falls in every epoch
    ],
)
def test_a_training_ends_when_a_figure_is_not_better_for_long(
    figure, mode, figures, epochs, tmp_path
):
    options = {"early_stopping": figure, "early_stopping_mode": mode, "patience": 2}
    _, result = train(tmp_path / "run", Regression(figures), epochs=6, **options)
    assert len(result.history) == epochs
    assert result.checkpoint.exists()


def test_a_resumed_training_waits_as_long_as_the_uninterrupted_one(tmp_path):
    figures = [3, 1, 1, 1, 1, 1, 1, 1]
    options = {"early_stopping": "val/score", "patience": 3, "checkpoint_every": 1}
    _, first = train(tmp_path / "run", Regression(figures), epochs=2, **options)
    assert len(first.history) == 2
    _, after = train(tmp_path / "run", Regression(figures), epochs=8, resume=True, **options)
    assert len(after.history) == 4
    _, again = train(tmp_path / "run", Regression(figures), epochs=8, resume=True, **options)
    assert len(again.history) == 4


def test_a_figure_that_never_comes_is_told(tmp_path):
    with pytest.raises(InputError, match=r"no epoch has such a figure; there are .*train/loss"):
        train(tmp_path / "run", epochs=9, early_stopping="val/dice", patience=2)


def test_no_time_ends_a_training_with_a_checkpoint_that_goes_on(tmp_path):
    _, result = train(tmp_path / "run", epochs=4, max_time="00:00:00:00")
    assert len(result.history) == 1
    whole, _ = train(tmp_path / "whole", epochs=4)
    module, result = train(tmp_path / "run", epochs=4, resume=True, max_time="01:00:00:00")
    assert len(result.history) == 4
    assert torch.equal(module.net.weight, whole.net.weight)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_time": "12:00"}, "max_time must be days:hours"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"accumulate_grad_batches": 0}, "accumulate_grad_batches must be at least 1"),
        ({"loggers": ("wanb",)}, "did you mean wandb?"),
    ],
)
def test_options_out_of_range_are_refused(options, told):
    with pytest.raises(InputError, match=told):
        TrainerConfig(**options)


def test_a_logger_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("cl_core.training.loggers.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"wandb is not installed: pip install 'cl-core\[wandb\]'"):
        train(tmp_path / "run", loggers=["wandb"])
    train(tmp_path / "other", tensorboard=True)  # by default only where it is installed


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs TensorBoard")
def test_tensorboard_gets_the_curves(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, result = train(tmp_path / "run", tensorboard=True)
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    losses = [event.value for event in events.Scalars("train/loss")]
    assert losses == pytest.approx([row["train/loss"] for row in result.history])


@pytest.mark.skipif(find_spec("mlflow") is None, reason="needs MLflow")
@pytest.mark.filterwarnings("ignore:::mlflow")
@pytest.mark.filterwarnings("ignore:.*filesystem.*:FutureWarning")
def test_mlflow_writes_the_curves_into_a_folder_of_the_run(tmp_path):
    _, result = train(tmp_path / "run", loggers=["mlflow"])
    (metric,) = (tmp_path / "run/mlruns").glob("*/*/metrics/train/loss")
    losses = [float(line.split()[1]) for line in metric.read_text().splitlines()]
    assert losses == pytest.approx([row["train/loss"] for row in result.history])
    train_again = train(tmp_path / "run", epochs=4, resume=True, loggers=["mlflow"])
    assert len(train_again[1].history) == 4


@pytest.mark.skipif(find_spec("wandb") is None, reason="needs Weights & Biases")
@pytest.mark.filterwarnings("ignore:::wandb")
def test_wandb_writes_offline_into_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(tmp_path / "run", loggers=["wandb"])
    import wandb

    wandb.finish()
    (written,) = (tmp_path / "run/wandb").glob("offline-run-*/run-*.wandb")
    assert b"train/loss" in written.read_bytes()


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.slow
def test_compiled_networks_learn_the_same_and_keep_their_names(tmp_path):
    plain, _ = train(tmp_path / "plain")
    module, _ = train(tmp_path / "compiled", compile=True)
    assert module.compiled
    assert module.net._compiled_call_impl is None
    assert list(module.state_dict()) == ["net.weight", "net.bias"]
    torch.testing.assert_close(module.net.weight, plain.net.weight)


def test_where_nothing_can_be_compiled_that_is_told(tmp_path, monkeypatch):
    def broken(module):
        raise torch._dynamo.exc.TorchDynamoException("no C++ compiler\nmore")

    module = Regression()
    monkeypatch.setattr(module.net, "compile", lambda: None)
    monkeypatch.setattr(module, "training_step", lambda batch, batch_idx: broken(module))
    with pytest.raises(InputError, match=r"compile does not work here \(no C\+\+ compiler\)"):
        train(tmp_path / "run", module, compile=True)


class Module(lightning.LightningDataModule):
    """Prepared and set up before its loaders are asked for."""

    def __init__(self):
        super().__init__()
        self.done = []

    def prepare_data(self):
        self.done.append("prepared")

    def setup(self, stage):
        self.done.append(stage)
        self.rows = data()

    def train_dataloader(self):
        return DataLoader(self.rows, batch_size=5, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.rows, batch_size=5)


class Validated(Regression):
    def validation_step(self, batch, batch_idx):
        self.log("val/loss", (self.net(batch[0]) - batch[1]).square().mean())


def test_a_data_module_brings_its_loaders(tmp_path):
    given = Module()
    module, result = train(tmp_path / "run", Validated(), loader=given)
    assert given.done == ["prepared", "fit"]
    assert "val/loss" in result.history[-1]
    given.setup("fit")
    loader = DataLoader(given.rows, batch_size=5, shuffle=True)
    other, _ = train(tmp_path / "other", Regression(), loader=loader)
    assert torch.equal(module.net.weight, other.net.weight)
