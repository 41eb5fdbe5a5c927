"""A run that was stopped ends as the one that was not.

Run as a program, the file is that run: ``test_resume.py OUT kill`` or ``test_resume.py OUT ddp``.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from cl_core.config import TrainerConfig
from cl_core.loader import make_loader
from cl_core.runs import Run
from cl_core.seeding import seed_everything
from cl_core.training import fit

CONFIG = TrainerConfig(accelerator="cpu", devices=1, progress=False, tensorboard=False)


class Noisy(lightning.LightningModule):
    """Everything that random numbers or state outside the weights could spoil."""

    def __init__(self):
        super().__init__()
        seed_everything(0)
        self.net = nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.RReLU(), nn.Dropout(0.3), nn.Linear(16, 3)
        )
        self.register_buffer("mean", torch.zeros(3))

    def on_train_start(self):
        torch.rand(5)  # once a process, so at other epochs in a resumed run

    def training_step(self, batch, batch_idx):
        x, y = batch
        z = self.net(x + 0.1 * np.random.randn())
        self.mean.lerp_(z.detach().mean(0), 0.1)
        loss = (z - y + 0.01 * self.mean).square().mean()
        return {"loss": loss, "embedding": z}

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + 0.1 * step))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Augmented(Dataset):
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(22, 4, generator=generator)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, row):
        noise = np.float32(0.1 * np.random.randn())
        return self.x[row] * (1 + noise), self.x[row, :3] * (1 + 0.1 * torch.randn(()))


class Stream(IterableDataset):
    """Without a length, so that Lightning fetches ahead."""

    def __iter__(self):
        rows = Augmented()
        for _ in range(6):
            yield rows[torch.randint(22, ()).item()]


LOADERS = {
    "ours": lambda: make_loader(Augmented(), batch_size=5, shuffle=True, workers=0, seed=0),
    "ours with workers": lambda: make_loader(
        Augmented(), batch_size=5, shuffle=True, workers=2, seed=0
    ),
    "plain": lambda: DataLoader(Augmented(), batch_size=5, shuffle=True),
    "plain with workers": lambda: DataLoader(
        Augmented(), batch_size=5, shuffle=True, num_workers=2
    ),
    "a stream": lambda: DataLoader(Stream(), batch_size=2),
}


class Stop(lightning.Callback):
    """Acts in the middle of epoch 3."""

    def __init__(self, act):
        self.act = act

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (2, 1):
            self.act()


def train(out, loader, epochs=5, resume=False, act=None, every=1, config=CONFIG):
    module = Noisy()
    options = {k: getattr(config, k) for k in config.__dataclass_fields__}
    with Run.create(out, {"epochs": epochs}, resume=resume) as run:
        result = fit(
            module,
            LOADERS[loader](),
            run=run,
            epochs=epochs,
            seed=0,
            trainer=TrainerConfig(**options | {"checkpoint_every": every}),
            callbacks=[Stop(act)] if act else [],
        )
    return module, result


def assert_same_end(one, other):
    (one, first), (other, second) = one, other
    states = [torch.load(r.checkpoint, weights_only=True) for r in (first, second)]
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        torch.testing.assert_close(states[0][key], states[1][key], rtol=0, atol=0)
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
    rows = [[{**row, "seconds": 0} for row in r.history] for r in (first, second)]
    assert rows[0] == rows[1]


def fail():
    raise RuntimeError("stop")


@pytest.mark.parametrize("loader", LOADERS)
def test_a_run_that_failed_ends_as_if_it_had_not(tmp_path, loader):
    straight = train(tmp_path / "straight", loader)
    with pytest.raises(RuntimeError, match="stop"):
        train(tmp_path / "stopped", loader, act=fail)
    assert_same_end(straight, train(tmp_path / "stopped", loader, resume=True))


def test_epochs_and_seeds_differ():
    """Else the test above would pass with one order and one noise for every epoch."""
    for make in LOADERS.values():
        seed_everything(0)
        loader = make()
        first, second = ([batch[0] for batch in loader] for _ in range(2))
        assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_epochs_after_the_checkpoint_are_repeated(tmp_path):
    straight = train(tmp_path / "straight", "ours", epochs=4, every=2)
    with pytest.raises(RuntimeError):
        train(tmp_path / "stopped", "ours", epochs=4, act=fail, every=1)
    # As if the kill had come between the row of epoch 2 and its checkpoint, and later.
    with (tmp_path / "stopped" / "history.csv").open("a") as file:
        file.write("3,1,1,1,1,1\n4,1,")
    assert_same_end(straight, train(tmp_path / "stopped", "ours", epochs=4, resume=True, every=2))


def test_a_run_without_a_checkpoint_yet_begins_anew(tmp_path):
    straight = train(tmp_path / "straight", "ours")
    run = Run.create(tmp_path / "stopped", {"epochs": 5})
    run.history.append({"epoch": 1, "seconds": 1.0})
    run.close()
    assert_same_end(straight, train(tmp_path / "stopped", "ours", resume=True))


def test_a_finished_run_can_be_prolonged(tmp_path):
    straight = train(tmp_path / "straight", "ours", epochs=5)
    train(tmp_path / "longer", "ours", epochs=3)
    assert_same_end(straight, train(tmp_path / "longer", "ours", epochs=5, resume=True))


def test_resuming_a_finished_run_gives_its_weights_and_changes_nothing(tmp_path):
    done = train(tmp_path / "run", "ours", epochs=3)
    again = train(tmp_path / "run", "ours", epochs=3, resume=True)
    assert_same_end(done, again)
    assert again[1].epochs == 3


@pytest.mark.parametrize(
    ("number", "outcome"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_ends_the_run_and_keeps_its_checkpoint(tmp_path, capfd, number, outcome):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with pytest.raises(outcome) as stopped:
        train(tmp_path / "stopped", "ours", act=lambda: os.kill(os.getpid(), number))
    checkpoint = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    message = f"stopped in epoch 3; the last good checkpoint is {checkpoint}\n"
    assert capfd.readouterr().err == message
    if outcome is SystemExit:
        assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    straight = train(tmp_path / "straight", "ours")
    assert_same_end(straight, train(tmp_path / "stopped", "ours", resume=True))


def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path):
    straight = train(tmp_path / "straight", "ours with workers")
    killed = subprocess.run([sys.executable, __file__, str(tmp_path / "killed"), "kill"])
    assert killed.returncode == -signal.SIGKILL
    assert_same_end(straight, train(tmp_path / "killed", "ours with workers", resume=True))


# Two processes


class Plain(lightning.LightningModule):
    """A loss that is a mean over rows, so that the ranks' mean is that of the joint batch."""

    def __init__(self):
        super().__init__()
        seed_everything(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()

    def training_step(self, batch, batch_idx):
        return (self.net(batch[0]) - batch[1]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def train_plain(out, *, devices, batch_size, ours):
    x = torch.randn(24, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, x[:, :3])
    if ours:
        loader = make_loader(data, batch_size=batch_size, shuffle=True, workers=0, seed=0)
    else:
        loader = DataLoader(data, batch_size=batch_size)
    config = TrainerConfig(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        progress=False,
    )
    module = Plain()
    # Told apart by the option, a rank that wrote would be found out.
    with Run.create(out, {"rank": os.environ.get("RANK", "alone")}) as run:
        result = fit(module, loader, run=run, epochs=3, seed=0, trainer=config)
        run.save_metrics({"loss": result.history[-1]["train/loss"]})
    return module, result


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_joint_batch(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, __file__, str(tmp_path), "ddp"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for ours in (True, False):
        out = tmp_path / f"two-{ours}"
        module, result = train_plain(tmp_path / f"one-{ours}", devices=1, batch_size=8, ours=ours)
        for rank in (0, 1):  # they share the weights
            state = torch.load(tmp_path / f"{ours}-{rank}.pt", weights_only=True)
            torch.testing.assert_close(state, module.state_dict(), rtol=1e-12, atol=1e-14)
        run = Run.open(out)
        assert run.config == {"rank": "0"}
        losses = [
            [row["train/loss"] for row in rows] for rows in (run.history.rows(), result.history)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
        assert len(list((out / "tensorboard").glob("events*"))) == 1
        assert run.checkpoint.exists()


if __name__ == "__main__":
    out, what = Path(sys.argv[1]), sys.argv[2]
    if what == "kill":
        train(out, "ours with workers", act=lambda: os.kill(os.getpid(), signal.SIGKILL))
    else:
        for ours in (True, False):
            module, _ = train_plain(out / f"two-{ours}", devices=2, batch_size=4, ours=ours)
            torch.save(module.state_dict(), out / f"{ours}-{os.environ['RANK']}.pt")
