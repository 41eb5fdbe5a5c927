import math
import warnings
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, StochasticWeightAveraging
from torch import nn
from torch.utils.data import TensorDataset

from cl_core.config import TrainerConfig
from cl_core.errors import InputError, TrainingError
from cl_core.evaluation.spectrum import effective_rank, feature_std
from cl_core.loader import make_loader
from cl_core.runs import Run
from cl_core.runs.history import History
from cl_core.seeding import seed_everything
from cl_core.training import fit, restore_weights
from cl_core.training.fit import _sizes


class Regression(lightning.LightningModule):
    """Fits a linear map; ``spoil(module, loss, step)`` may change the loss it returns."""

    def __init__(self, spoil=None, embed=None, rate=0.1):
        super().__init__()
        seed_everything(0)
        self.net = nn.Linear(4, 3)
        self.spoil, self.embed, self.rate = spoil, embed, rate
        self.losses, self.embeddings = [], []

    def training_step(self, batch, batch_idx):
        loss = (self.net(batch[0]) - batch[1]).square().mean()
        if self.spoil:
            loss = self.spoil(self, loss, self.global_step + 1)
        self.losses.append(loss.item())
        if self.embed is None:
            return loss
        self.embeddings.append(self.embed(batch[0]))
        return {"loss": loss, "embedding": self.embeddings[-1]}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate)


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 4, generator=generator)
    return TensorDataset(x, x[:, :3] * 2)


def train(out, module, epochs=3, callbacks=(), config=(), loader=None, resume=False, **options):
    trainer = TrainerConfig(**{"progress": False, "tensorboard": False, **dict(config)})
    if loader is None:
        loader = make_loader(data(), batch_size=5, shuffle=True, workers=0, seed=0)
    with Run.create(out, {"epochs": epochs}, resume=resume) as run:
        return fit(
            module,
            loader,
            run=run,
            epochs=epochs,
            seed=0,
            trainer=trainer,
            callbacks=callbacks,
            resume=resume,
            **options,
        )


class Saves(lightning.Callback):
    """Notes after which epochs a checkpoint was written."""

    def __init__(self):
        self.epochs = []

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        self.epochs.append(trainer.current_epoch + 1)


def epoch_of(checkpoint):
    return torch.load(checkpoint, weights_only=True)["epoch"] + 1


def test_a_training_learns_and_tells_what_it_did(tmp_path):
    module = Regression()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = train(tmp_path, module, epochs=40)
    assert result.history[-1]["train/loss"] < result.history[0]["train/loss"] / 100
    steps = torch.tensor(module.losses, dtype=torch.float64).reshape(40, 4)
    means = [row["train/loss"] for row in result.history]
    assert means == pytest.approx(steps.mean(1).tolist(), rel=1e-6)
    assert [row["epoch"] for row in result.history] == list(range(1, 41))
    assert result.history[0]["learning_rate"] == 0.1
    assert result.seconds == pytest.approx(sum(row["seconds"] for row in result.history))
    assert result.epochs == 40
    assert result.history == Run.open(tmp_path).history.rows()
    saved = torch.load(result.checkpoint, weights_only=True)["state_dict"]
    assert torch.equal(saved["net.weight"], module.net.weight.detach())


def test_a_list_of_batches_is_an_epoch(tmp_path):
    module = Regression()
    train(tmp_path, module, epochs=3, loader=[data()[:], data()[:5]])
    assert len(module.losses) == 6


def test_what_a_module_logs_becomes_a_column(tmp_path):
    class Logging(Regression):
        def training_step(self, batch, batch_idx):
            self.log("train/loss", 99.0)  # the returned loss is the one that is kept
            self.log("rows", float(len(batch[0])), on_step=True, on_epoch=True)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            self.log("val/loss", (self.net(batch[0]) - batch[1]).square().mean())

        def on_train_epoch_end(self):
            self.log("twice", 2.0 * self.current_epoch)

    module = Logging()
    val = make_loader(data(), batch_size=20, shuffle=False, workers=0, seed=0)
    result = train(tmp_path, module, epochs=2, val_loader=val, monitor="val/loss")
    row = result.history[-1]
    names = {"epoch", "seconds", "learning_rate", "train/loss", "rows", "val/loss", "twice"}
    assert set(row) == names
    assert (row["rows"], row["twice"]) == (5.0, 2.0)
    x, y = data()[:]
    assert row["val/loss"] == pytest.approx((module.net(x) - y).square().mean().item(), rel=1e-6)
    assert row["train/loss"] < 99


# What stops a run


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_epoch(tmp_path, value):
    module = Regression(lambda module, loss, step: loss * value if step == 11 else loss)
    message = rf"the loss is {value} at step 11, epoch 3: .* the last good checkpoint is {tmp_path}"
    with pytest.raises(TrainingError, match=message):
        train(tmp_path, module, epochs=5, config={"checkpoint_every": 1})
    assert epoch_of(tmp_path / "checkpoints" / "last.ckpt") == 2
    assert [row["epoch"] for row in Run.open(tmp_path).history.rows()] == [1, 2]


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    def overflow(module, loss, step):  # a finite loss whose gradient is not
        return loss + (0 * module.net.bias.sum()).sqrt() if step == 12 else loss

    with pytest.raises(TrainingError, match="the weights are not finite after epoch 3, step 12"):
        train(tmp_path, Regression(overflow), epochs=3, config={"checkpoint_every": 1})
    assert epoch_of(tmp_path / "checkpoints" / "last.ckpt") == 2


def test_large_finite_weights_are_saved(tmp_path):
    module = Regression(rate=0.0)
    with torch.no_grad():
        module.net.bias.fill_(3e38)  # whose sum overflows
    module.spoil = lambda module, loss, step: module.net.weight.sum()
    assert train(tmp_path, module, epochs=1).epochs == 1


def test_a_run_that_fails_before_its_first_checkpoint_leaves_nothing(tmp_path):
    with pytest.raises(TrainingError, match=r"step 1, epoch 1: .* there is no checkpoint yet"):
        train(tmp_path / "run", Regression(lambda module, loss, step: loss * math.nan))
    assert not (tmp_path / "run").exists()


def test_an_impossible_request_is_refused(tmp_path):
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        train(tmp_path / "a", Regression(), epochs=0)
    with pytest.raises(InputError, match=r"--trainer: .*abacus"):
        train(tmp_path / "b", Regression(), config={"accelerator": "abacus"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for what this machine has")
def test_an_accelerator_that_is_absent_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"^--trainer: .*CUDAAccelerator.*can not run[^\n]*$"):
        train(tmp_path, Regression(), config={"accelerator": "cuda"})


# Collapse


def test_the_gauge_is_that_of_the_last_rows_of_the_epoch(tmp_path):
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(4, 6, generator=generator)
    module = Regression(embed=lambda x: x @ table)
    row = train(tmp_path, module, epochs=2).history[-1]
    last = torch.cat(module.embeddings[-4:])
    assert row["collapse/effective_rank"] == pytest.approx(effective_rank(last), rel=1e-9)
    assert row["collapse/feature_std"] == pytest.approx(feature_std(last), rel=1e-6)
    assert row["collapse/effective_rank"] > 3


@pytest.mark.parametrize(
    "embed",
    [lambda x: torch.ones(len(x), 6), lambda x: x[:, :1] * torch.ones(6)],
    ids=["one point", "one line"],
)
def test_a_collapse_is_warned_of_once(tmp_path, embed):
    with pytest.warns(UserWarning, match="the embedding has collapsed at epoch 1") as caught:
        train(tmp_path, Regression(embed=embed), epochs=3)
    assert len([w for w in caught if "collapsed" in str(w.message)]) == 1


def test_a_long_run_is_not_slowed_by_its_gauge(tmp_path):
    module = Regression(embed=lambda x: x)
    history = train(tmp_path, module, epochs=250, loader=[data()[:]]).history
    measured = [int(row["epoch"]) for row in history if "collapse/effective_rank" in row]
    assert measured == [1, *range(2, 251, 2)]


# Checkpoints


def test_checkpoints_come_as_often_as_asked_and_after_the_last_epoch(tmp_path):
    saves = Saves()
    train(tmp_path, Regression(), epochs=5, callbacks=[saves], config={"checkpoint_every": 2})
    assert saves.epochs == [2, 4, 5]


def test_short_epochs_are_not_slowed_by_checkpoints(tmp_path):
    saves = Saves()
    train(tmp_path, Regression(), epochs=60, callbacks=[saves], loader=[data()[:]])
    assert saves.epochs[0] == 1
    assert saves.epochs[-1] == 60
    assert len(saves.epochs) < 20  # seconds decide: here two, unless the machine is very busy


@pytest.mark.parametrize(("mode", "best"), [("min", 2), ("max", 1)])
def test_the_best_checkpoint_is_the_best_of_those_written(tmp_path, mode, best):
    class Scored(Regression):
        def on_train_epoch_end(self):
            self.log("score", [3.0, 1.0, 2.0, 9.0][self.current_epoch])

    result = train(
        tmp_path / "a",
        Scored(),
        epochs=3,
        monitor="score",
        mode=mode,
        config={"checkpoint_every": 1},
    )
    assert epoch_of(result.best) == best
    assert epoch_of(result.checkpoint) == 3
    # A resumed run knows the best of the run before it.
    longer = train(tmp_path / "a", Scored(), epochs=4, monitor="score", mode=mode, resume=True)
    assert epoch_of(longer.best) == {"min": 2, "max": 4}[mode]


def test_what_a_model_is_chosen_by_is_saved_at_its_best_epoch_however_short_epochs_are(tmp_path):
    class Scored(Regression):
        def __init__(self):
            super().__init__()
            self.kept = {}

        def on_train_epoch_end(self):
            self.kept[self.current_epoch + 1] = self.net.weight.detach().clone()
            self.log("val/score", -abs(self.current_epoch + 1 - 17.0))

    module = Scored()
    result = train(tmp_path / "a", module, epochs=30, monitor="val/score", mode="max")
    assert epoch_of(result.best) == 17
    restore_weights(module, result.best)
    assert torch.equal(module.net.weight, module.kept[17])
    with pytest.raises(InputError, match="another module"):
        restore_weights(nn.Linear(2, 2), result.best)


def test_an_unknown_monitor_gives_no_best(tmp_path):
    assert train(tmp_path, Regression(), monitor="absent").best is None


def test_state_that_could_not_be_resumed_is_refused_at_the_first_checkpoint(tmp_path):
    class Unsafe(Regression):
        def on_save_checkpoint(self, checkpoint):
            checkpoint["where"] = Path("here")

    with pytest.raises(ValueError, match="cannot be loaded safely: keep only tensors"):
        train(tmp_path, Unsafe())
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_hyperparameters_that_are_objects_do_not_hinder_resuming(tmp_path):
    class Saved(Regression):
        def __init__(self, where):
            super().__init__()
            self.save_hyperparameters()

    train(tmp_path, Saved(Path("here")), epochs=1)
    assert train(tmp_path, Saved(Path("here")), epochs=2, resume=True).epochs == 2


@pytest.mark.parametrize("content", [b"half a file", b""])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    result = train(tmp_path, Regression(), epochs=1)
    result.checkpoint.write_bytes(content)
    with pytest.raises(InputError, match=f"{result.checkpoint} is damaged"):
        train(tmp_path, Regression(), epochs=2, resume=True)


# What is shown


def test_a_log_gets_plain_lines_and_nothing_of_lightnings(tmp_path, capfd):
    train(tmp_path, Regression(), epochs=20, config={"progress": True, "tensorboard": True})
    shown = capfd.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert lines[0].startswith("epoch 1/20  loss ")
    assert lines[-1].startswith("epoch 20/20  loss ")
    assert all(line.startswith("epoch ") for line in lines)
    assert len(lines) < 10
    assert "\x1b" not in shown.err
    assert list((tmp_path / "tensorboard").glob("events.out.*"))


def test_a_terminal_gets_a_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    train(tmp_path, Regression(), epochs=3, config={"progress": True})
    shown = capsys.readouterr().err
    assert "epoch 3/3  loss" in shown
    assert "100 %" in shown


def test_without_progress_nothing_is_shown(tmp_path, capfd):
    train(tmp_path, Regression())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "callbacks",
    [
        [],
        [GradientAccumulationScheduler({0: 2})],
        [StochasticWeightAveraging(0.05, swa_epoch_start=1)],
    ],
    ids=["alone", "accumulated", "averaged"],
)
def test_the_recorded_loss_is_that_of_the_batches(tmp_path, callbacks):
    module = Regression(spoil=lambda module, loss, step: loss * 0 + 2.0)
    result = train(tmp_path / "run", module, epochs=2, callbacks=callbacks)
    assert [row["train/loss"] for row in result.history] == [2.0] * len(result.history)
    assert len(result.history) >= 2


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_a_module_trained_in_another_precision_comes_back_in_float32(tmp_path, precision):
    module = Regression()
    train(tmp_path / "run", module, epochs=2, config={"precision": precision})
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    module.net(torch.zeros(1, 4))
    more = Regression()
    train(tmp_path / "run", more, epochs=3, config={"precision": precision}, resume=True)
    assert len(History(tmp_path / "run/history.csv").rows()) == 3


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("spoil", ["state_dict", "optimizer_states", "loops", "callbacks"])
@pytest.mark.parametrize("value", [None, 3, [], {"a": 1}, "x"])
def test_a_checkpoint_with_other_content_is_named(tmp_path, spoil, value):
    train(tmp_path / "run", Regression(), epochs=1)
    path = tmp_path / "run/checkpoints/last.ckpt"
    state = torch.load(path, weights_only=True)
    torch.save(state | {spoil: value}, path)
    try:
        train(tmp_path / "run", Regression(), epochs=2, resume=True)
    except InputError as error:
        assert "last.ckpt" in str(error)  # noqa: PT017
        assert "--overwrite" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("environment", "options", "expected"),
    [
        ({}, {}, ("auto", 1, "auto")),
        ({"devices": "2"}, {"devices": 3, "strategy": "fsdp"}, (3, 1, "fsdp")),
        ("torchrun 2 1", {}, (2, 1, "ddp")),
        ("torchrun 2 3", {}, (2, 3, "ddp")),
        ("torchrun 2 1", {"devices": 2, "strategy": "fsdp"}, (2, 1, "fsdp")),
        ("torchrun 2 1", {"devices": "0,1"}, ("0,1", 1, "ddp")),
        ("torchrun 2 1", {"devices": 4}, "the launcher started 2 processes on each of 1"),
        ("torchrun 2 3", {"num_nodes": 2}, "started 2 processes on each of 3 machines"),
        ("torchrun 1 1", {}, ("auto", 1, "auto")),
        ("srun 2 2", {}, (2, 2, "ddp")),
        ("srun 1 2", {"num_nodes": 2, "devices": 1}, (1, 2, "ddp")),
    ],
)
def test_the_sizes_are_the_launchers(monkeypatch, environment, options, expected):
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    if isinstance(environment, str):
        kind, local, nodes = environment.split()
        world = str(int(local) * int(nodes))
        told = {
            "torchrun": {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": local, "LOCAL_RANK": "0"},
            "srun": {"SLURM_STEP_NUM_TASKS": world, "SLURM_STEP_NUM_NODES": nodes},
        }
        for name, value in told[kind].items():
            monkeypatch.setenv(name, value)
    config = TrainerConfig(**options)
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            _sizes(config)
    else:
        assert _sizes(config) == expected
