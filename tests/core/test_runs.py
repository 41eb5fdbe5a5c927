import dataclasses
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from cl_core.config import TrainerConfig
from cl_core.errors import InputError
from cl_core.runs import Run, write_atomic
from cl_core.runs.folder import launched_rank, launched_shard
from cl_core.runs.history import History


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A command.

    Args:
        data: A file.
        out: Where to.
        rate: A number.
        sizes: Several.
        epochs: How long.
        resume: Continue.
        overwrite: Replace.
        trainer: How to train.
    """

    data: Path = Path("cora.npz")
    out: Path = Path("runs/cora")
    rate: float = 1e-5
    sizes: tuple[int, ...] = (1, 2)
    epochs: int = 3
    resume: bool = False
    overwrite: bool = False
    trainer: TrainerConfig = dataclasses.field(default_factory=TrainerConfig)


def names(path):
    return sorted(file.name for file in path.iterdir() if file.name != ".lock")


def finished(out, config=None, accuracy=0.5):
    with Run.create(out, config or Config(), overwrite=out.exists()) as run:
        run.save_metrics({"accuracy": accuracy})


# Writing a file


def test_a_file_appears_whole_and_keeps_its_suffix_for_writers_that_go_by_it(tmp_path):
    with write_atomic(tmp_path / "x.npy") as temporary:
        np.save(temporary, np.arange(3))
        assert names(tmp_path) == [temporary.name]
    assert names(tmp_path) == ["x.npy"]
    assert np.load(tmp_path / "x.npy").tolist() == [0, 1, 2]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "x").write_text("old")
    with suppress(KeyError), write_atomic(tmp_path / "x") as temporary:
        temporary.write_text("half")
        raise KeyError
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    for content in ("old", "new"):
        with write_atomic(tmp_path / "maps") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert names(tmp_path) == ["maps"]
    assert names(tmp_path / "maps") == ["new"]


def test_writing_nothing_is_a_mistake_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match="nothing was written"), write_atomic(tmp_path / "x"):
        pass


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    place = tmp_path / "absent" / "x"
    with pytest.raises(InputError, match=f"cannot write {place}"), write_atomic(place) as temporary:
        temporary.write_text("x")


def test_the_trouble_of_another_file_is_not_taken_for_ones_own(tmp_path):
    with pytest.raises(FileNotFoundError), write_atomic(tmp_path / "x") as temporary:
        temporary.write_bytes((tmp_path / "input").read_bytes())


def test_a_full_disk_ends_in_one_line_and_keeps_the_old_file(tmp_path):
    # A limit on the size of files stands in for the disk: writing beyond it fails as there.
    program = f"""
import resource, signal
from cl_core.errors import InputError
from cl_core.runs import Run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
run = Run.create({str(tmp_path / "run")!r}, {{"a": 1}})
run.save_metrics({{"accuracy": 0.5}})
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    run.save_metrics({{f"{{i}}/accuracy": 0.1 for i in range(1000)}})
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == f"cannot write {tmp_path / 'run' / 'metrics.json'}: File too large\n"
    assert Run.open(tmp_path / "run").metrics() == {"accuracy": 0.5}
    assert names(tmp_path / "run") == ["config.yaml", "metrics.json"]


# Who may write a folder


def test_a_run_makes_its_folder_and_the_parents(tmp_path):
    finished(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == ["config.yaml", "metrics.json"]


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty \(it holds thesis.txt\)"):
        Run.create(tmp_path, Config())
    finished(tmp_path / "run")
    with pytest.raises(InputError, match="holds a run: continue it with --resume, replace it"):
        Run.create(tmp_path / "run", Config())


def test_only_a_run_is_overwritten(tmp_path):
    (tmp_path / "config.yaml").write_text("theirs: 1\n")
    with pytest.raises(InputError, match=r"--overwrite: .* only a run is overwritten"):
        Run.create(tmp_path, Config(), overwrite=True)
    assert names(tmp_path) == ["config.yaml"]
    assert not (tmp_path / ".lock").exists()  # a refusal leaves no trace


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_is_no_folder_is_refused(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=f"--out {tmp_path / place}"):
        Run.create(tmp_path / place, Config())


def test_resuming_and_overwriting_exclude_each_other(tmp_path):
    with pytest.raises(InputError, match="--resume and --overwrite exclude each other"):
        Run.create(tmp_path, Config(), resume=True, overwrite=True)


def test_a_second_process_is_refused_while_the_first_lives_and_not_after_its_kill(tmp_path):
    program = f"""
import os, time
from cl_core.runs import Run
run = Run.create({str(tmp_path)!r}, {{"a": 1}})
run.save_metrics({{}})
if os.fork() == 0:  # as a data worker: outlives its killed parent by a while
    time.sleep(60)
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as first:
        assert first.stdout.readline() == "ready\n"
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(
                InputError, match=f"holds a run|by another run .process {first.pid}"
            ):
                Run.create(tmp_path, {"a": 1}, **options)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        with Run.create(tmp_path, {"a": 1}, resume=True) as run:
            assert run.metrics() == {}
        os.killpg(first.pid, signal.SIGKILL)  # the worker


def test_the_same_process_is_refused_a_folder_it_holds(tmp_path):
    finished(tmp_path / "run")
    with (
        Run.create(tmp_path / "run", Config(), resume=True),
        pytest.raises(InputError, match="is being written by another run"),
    ):
        Run.create(tmp_path / "run", Config(), overwrite=True)


# Overwriting and failing lose nothing


def test_overwriting_replaces_what_runs_made_and_nothing_else(tmp_path):
    with Run.create(tmp_path, Config()) as run:
        with write_atomic(run.output("maps/north.txt")) as file:
            file.write_text("1")
        run.save_metrics({"accuracy": 0.1})
    (tmp_path / "notes.txt").write_text("mine")
    with Run.create(tmp_path, Config(rate=2.0), overwrite=True) as run:
        assert not (tmp_path / "maps").exists()
        run.save_metrics({"accuracy": 0.2})
        assert names(tmp_path) == ["config.yaml", "metrics.json", "notes.txt"]
    assert Run.open(tmp_path).metrics() == {"accuracy": 0.2}


def test_a_run_that_fails_early_gives_the_folder_back_as_it_was(tmp_path):
    with suppress(KeyError), Run.create(tmp_path / "new", Config()):
        raise KeyError
    with Run.create(tmp_path / "new", Config()):  # so the corrected command runs
        pass
    finished(tmp_path / "old", accuracy=0.7)
    with suppress(KeyError), Run.create(tmp_path / "old", Config(), overwrite=True) as run:
        run.history.append({"epoch": 1})
        run.output("maps").mkdir()
        raise KeyError
    assert Run.open(tmp_path / "old").metrics() == {"accuracy": 0.7}
    assert names(tmp_path / "old") == ["config.yaml", "metrics.json"]


def test_a_run_that_fails_late_keeps_its_results(tmp_path):
    with suppress(KeyError), Run.create(tmp_path / "run", Config()) as run:
        run.save_metrics({"accuracy": 0.7})
        raise KeyError
    assert Run.open(tmp_path / "run").metrics() == {"accuracy": 0.7}


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_kill_at_any_file_operation_of_an_overwrite_keeps_the_old_run_or_the_new(tmp_path, stop):
    # The process kills itself at the stop-th rename, from the first file set aside on.
    out = tmp_path / "run"
    finished(out, accuracy=0.1)
    (out / "notes.txt").write_text("mine")
    program = f"""
import os, signal, sys
from cl_core.runs import Run
left = {stop}
def watch(event, arguments):
    global left
    if event == "os.rename":
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
with Run.create({str(out)!r}, {{"epochs": 3}}, overwrite=True) as run:
    run.save_metrics({{"accuracy": 0.2}})
"""
    done = subprocess.run([sys.executable, "-c", program])
    assert done.returncode in (0, -signal.SIGKILL)
    with pytest.raises(InputError, match="holds a run"):
        Run.create(out, Config())
    with suppress(KeyError), Run.create(out, Config(), overwrite=True):
        raise KeyError  # recovers what was left half done, then gives it back
    assert Run.open(out).metrics()["accuracy"] in (0.1, 0.2)
    assert names(out) == ["config.yaml", "metrics.json", "notes.txt"]


# What is recorded


def test_the_recorded_options_repeat_the_run(tmp_path):
    config = Config(rate=3e-7, sizes=(4,), overwrite=True, trainer=TrainerConfig(devices=2))
    with Run.create(tmp_path / "run", config):
        pass
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Config, None, as_group=False)
    file = str(tmp_path / "run" / "config.yaml")
    options = vars(parser.instantiate(parser.parse_args(["--config", file])))
    options.pop("config")
    assert Config(**options) == dataclasses.replace(config, overwrite=False)
    assert Run.open(tmp_path / "run").config["trainer"]["devices"] == 2


def test_an_option_without_a_plain_form_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"net.layer cannot be recorded"):
        Run.create(tmp_path, {"net": {"layer": object()}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 0.5}, "--resume: rate is 0.5 but was 1e-05 in .*config.yaml"),
        ({"data": Path("photo.npz")}, "--resume: data is photo.npz but was cora.npz"),
        ({"sizes": (1,)}, r"--resume: sizes is \[1\] but was \[1, 2\]"),
    ],
)
def test_a_run_is_not_resumed_with_another_meaning(tmp_path, change, message):
    finished(tmp_path / "run")
    with pytest.raises(InputError, match=message):
        Run.create(tmp_path / "run", Config(**change), resume=True)
    assert Run.open(tmp_path / "run").metrics() == {"accuracy": 0.5}


def test_a_run_is_resumed_for_longer_and_on_other_devices(tmp_path):
    finished(tmp_path / "run")
    config = Config(epochs=9, resume=True, out=Path("moved"), trainer=TrainerConfig(devices=2))
    with Run.create(tmp_path / "run", config, resume=True) as run:
        assert run.resumed
        assert run.metrics() == {"accuracy": 0.5}
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["epochs"] == 9


@pytest.mark.parametrize("place", ["absent", "."])
def test_nothing_is_resumed_where_there_is_no_run(tmp_path, place):
    with pytest.raises(InputError, match="--resume: there is no run in"):
        Run.create(tmp_path / place, Config(), resume=True)
    assert not (tmp_path / "absent").exists()


def test_metrics_are_strict_json_with_what_they_were_computed_with(tmp_path):
    with Run.create(tmp_path / "run", Config()) as run:
        run.save_metrics(
            {"a": np.float32(0.5), "b": torch.tensor(2.0), "c": 3, "d": float("nan"), "e": np.inf},
            seconds=1.5,
        )
        with pytest.raises(ValueError, match="the metric f must be a number"):
            run.save_metrics({"f": "high"})
    record = json.loads((tmp_path / "run" / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert record["metrics"] == {"a": 0.5, "b": 2.0, "c": 3, "d": None, "e": None}
    assert record["seconds"] == 1.5
    assert record["environment"]["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert record["version"] == record["environment"]["packages"]["cl-core"]


def test_outputs_lie_inside_the_run(tmp_path):
    with Run.create(tmp_path / "run", Config()) as run:
        for name in ("../x", "/x"):
            with pytest.raises(ValueError, match="inside the run directory"):
                run.output(name)


# The model


def test_a_model_and_its_card_come_back_as_they_went(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    module[1].weight = module[0].weight  # shared memory
    card = {"bands": (1, 2), "mean": np.array([0.5]), "classes": ["naïve"], "head": None}
    with Run.create(tmp_path / "run", Config()) as run:
        run.save_model(module, card)
        run.save_model({"w": torch.arange(6.0).reshape(2, 3).T}, card)
    state, read = Run.open(tmp_path / "run").load_model()
    assert torch.equal(state["w"], torch.arange(6.0).reshape(2, 3).T)
    assert read == {"bands": [1, 2], "mean": [0.5], "classes": ["naïve"], "head": None}


def test_a_card_holds_finite_numbers(tmp_path):
    with Run.create(tmp_path / "run", Config()) as run, pytest.raises(ValueError, match="JSON"):
        run.save_model({"w": torch.zeros(1)}, {"mean": float("nan")})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.json", None, "model.json cannot be read"),
        ("model.json", b'{"mean": NaN}', r"model.json is damaged \(NaN is not JSON\)"),
        ("model.json", b"[]", r"model.json is damaged"),
        ("model.json", b"{}", "is not the file that model.json describes"),
        ("model.safetensors", None, "cannot read .*model.safetensors"),
        ("model.safetensors", b"\x80\x04half a file", "model.safetensors is damaged"),
    ],
)
def test_a_damaged_model_is_refused(tmp_path, name, content, message):
    with Run.create(tmp_path / "run", Config()) as run:
        run.save_model({"w": torch.zeros(2)}, {})
    if content is None:
        (tmp_path / "run" / name).unlink()
    else:
        (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        Run.open(tmp_path / "run").load_model()


def test_only_a_run_is_opened(tmp_path):
    with pytest.raises(InputError, match=r"--run .*absent: not found"):
        Run.open(tmp_path / "absent")
    with pytest.raises(InputError, match=r"is not a run directory: it has no config.yaml"):
        Run.open(tmp_path)


# The history


def test_the_history_is_a_table_that_gains_columns(tmp_path):
    history = History(tmp_path / "history.csv")
    assert history.rows() == []
    history.append({"epoch": 1, "loss": 0.1})
    history.append({"epoch": 2, "loss": 0.2, "rank, of z": 3.5})
    history.append({"epoch": 3})
    assert history.path.read_text() == 'epoch,loss,"rank, of z"\n1,0.1,\n2,0.2,3.5\n3,,\n'
    assert History(history.path).rows() == history.rows()
    assert history.rows()[1:] == [{"epoch": 2, "loss": 0.2, "rank, of z": 3.5}, {"epoch": 3}]


def test_the_history_forgets_the_epochs_after_the_checkpoint_and_half_a_line(tmp_path):
    history = History(tmp_path / "history.csv")
    for epoch in (1, 2, 3):
        history.append({"epoch": epoch, "loss": 0.5})
    with history.path.open("a") as file:
        file.write("4,0.")
    again = History(history.path)
    assert [row["epoch"] for row in again.rows()] == [1, 2, 3]
    again.truncate(2)
    again.append({"epoch": 3, "loss": 0.25})
    assert again.path.read_text() == "epoch,loss\n1,0.5\n2,0.5\n3,0.25\n"


# Several processes


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, 0),
        ({"RANK": "3", "WORLD_SIZE": "4"}, 3),
        ({"RANK": "3"}, 0),  # some other program's
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, 2),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, 1),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1", "WORLD_SIZE": "2"}, 1),
    ],
)
def test_the_launcher_tells_the_rank(environment, rank):
    assert launched_rank(environment) == rank


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        ({}, (0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "4"}, (3, 4)),
        ({"RANK": "3"}, (0, 1)),
        ({"RANK": "4", "WORLD_SIZE": "4"}, (0, 1)),  # a stray variable
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, (2, 4)),
    ],
)
def test_the_launcher_tells_the_share_of_the_work(environment, shard):
    assert launched_shard(environment) == shard


def test_other_ranks_wait_until_the_first_has_begun_this_very_run(tmp_path, monkeypatch):
    with Run.create(tmp_path / "run", {"sizes": (1, 2)}) as first:
        first.begun()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    other = Run.create(tmp_path / "run", {"sizes": (1, 2)})
    other.wait_for_first({"sizes": (1, 2)}, seconds=0)
    with pytest.raises(InputError, match="the first of the processes has not begun"):
        other.wait_for_first({"sizes": (1, 3)}, seconds=0.1)
    absent = Run.create(tmp_path / "absent", {})
    with pytest.raises(InputError, match="has not begun there in 0 s"):
        absent.wait_for_first({}, seconds=0.1)
    assert not (tmp_path / "absent").exists()


def test_other_ranks_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with Run.create(tmp_path / "run", Config()) as run:
        run.save_metrics({"accuracy": 0.5})
        run.save_model({"w": torch.zeros(1)}, {})
        run.output("maps/x")
        assert not run.writes
    assert not (tmp_path / "run").exists()
