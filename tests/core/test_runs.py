import dataclasses
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from cl_core.checks import require_positive
from cl_core.commands.options import Options, Source
from cl_core.config import TrainerConfig
from cl_core.errors import InputError
from cl_core.runs import Run, write_atomic
from cl_core.runs.card import Card
from cl_core.runs.fingerprint import of_arrays, of_files
from cl_core.runs.history import History
from cl_core.runs.launch import launched_rank, launched_shard
from cl_core.runs.record import require_readable


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


def test_a_run_that_fails_early_leaves_no_folder_that_it_made(tmp_path):
    (tmp_path / "mine").mkdir()
    for out in ("a/b/run", "mine", "mine/run"):
        with suppress(KeyError), Run.create(tmp_path / out, Config()):
            raise KeyError
    assert names(tmp_path) == ["mine"]
    assert names(tmp_path / "mine") == []


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaleCard(Options):
    """How values are scaled."""

    mean: tuple[float, ...]
    unit: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerCard(Card):
    """A layer."""

    kind: ClassVar[str] = "layer"
    made_by: ClassVar[str] = "cl-x train"

    width: int
    act: Literal["relu", "none"] = "none"
    names: tuple[str, ...] = ()
    scale: ScaleCard | None = None

    def __post_init__(self) -> None:
        require_positive(width=self.width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OtherCard(LayerCard):
    """Another."""

    kind: ClassVar[str] = "tree"
    made_by: ClassVar[str] = "cl-y grow"


def layer(card):
    return torch.nn.Linear(card.width, card.width)


def saved_layer(out, **entries):
    card = LayerCard(**{"width": 2} | entries)
    with Run.create(out, Config(), overwrite=out.exists()) as run:
        run.save_model(layer(card), card)
    return Run.open(out)


def test_a_model_and_its_card_come_back_as_they_went(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    module[1].weight = module[0].weight  # shared memory
    card = LayerCard(width=3, names=("naïve",), scale=ScaleCard(mean=(0.5, 2)))
    with Run.create(tmp_path / "run", Config()) as run:
        run.save_model(module, card)
        run.save_model({"w": torch.arange(6.0).reshape(2, 3).T}, card)
    saved = Run.open(tmp_path / "run").load_model(OtherCard, LayerCard)
    assert torch.equal(saved.state["w"], torch.arange(6.0).reshape(2, 3).T)
    assert saved.card == card
    assert type(saved.card) is LayerCard
    assert (
        saved.digest
        == hashlib.sha256((tmp_path / "run/model.safetensors").read_bytes()).hexdigest()
    )


def test_a_model_is_rebuilt_in_eval_mode(tmp_path):
    run = saved_layer(tmp_path / "run")
    module = run.load_model(LayerCard).build(layer)
    assert not module.training
    assert torch.equal(module.weight, run.load_model(LayerCard).state["weight"])


def test_a_card_holds_finite_numbers(tmp_path):
    card = LayerCard(width=1, scale=ScaleCard(mean=(float("inf"),)))
    with Run.create(tmp_path / "run", Config()) as run, pytest.raises(ValueError, match="JSON"):
        run.save_model({"w": torch.zeros(1)}, card)


def test_a_model_of_another_package_is_refused(tmp_path):
    run = saved_layer(tmp_path / "run")
    with pytest.raises(
        InputError, match=r"holds a model of kind 'layer', not a 'tree' of cl-y grow"
    ):
        run.load_model(OtherCard)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.json", None, r"has no model yet: resume it \(model.json is missing\)"),
        ("model.json", b'{"mean": NaN}', r"model.json is damaged or no JSON: NaN is not JSON"),
        ("model.json", b"[]", r"model.json is damaged"),
        ("model.json", b"[" * 100_000, r"model.json is nested more than 64 deep"),
        ("model.json", b"{}", "holds a model of kind None, not a 'layer' of cl-x train"),
        ("model.json", b"\xff", "model.json is not UTF-8"),
        ("model.safetensors", None, "model.safetensors cannot be read"),
        ("model.safetensors", b"\x80\x04half a file", "model.safetensors is damaged"),
    ],
)
def test_a_damaged_model_is_refused(tmp_path, name, content, message):
    saved_layer(tmp_path / "run")
    if content is None:
        (tmp_path / "run" / name).unlink()
    else:
        (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        Run.open(tmp_path / "run").load_model(LayerCard)


WRONG = (None, True, 3, -1, 2.5, 2**70, "x", [], [1], {}, {"a": 1}, [[["x"]]])


@pytest.mark.parametrize(
    "key", ["width", "act", "names", "scale", "kind", "version", "weights_sha256"]
)
def test_wrong_types_in_a_card_are_one_line(tmp_path, key):
    run = saved_layer(tmp_path / "run", scale=ScaleCard(mean=(1.0,)))
    path = tmp_path / "run/model.json"
    good = json.loads(path.read_text())
    told = []
    for value in WRONG:
        path.write_text(json.dumps(good | {key: value}))
        with suppress(InputError):  # and nothing but that
            run.load_model(LayerCard).build(layer)
            continue
        told.append(value)
    assert len(told) >= (0 if key == "version" else 7)


def test_a_card_that_promises_more_than_its_weights_allocates_nothing(tmp_path):
    run = saved_layer(tmp_path / "run")
    path = tmp_path / "run/model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"width": 10**7}))  # 400 TB
    with pytest.raises(InputError, match=r"do not fit together \(weight is \(2, 2\), not"):
        run.load_model(LayerCard).build(layer)


def test_entries_that_are_missing_or_unknown_are_named(tmp_path):
    run = saved_layer(tmp_path / "run")
    path = tmp_path / "run/model.json"
    good = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in good.items() if name != "width"}))
    with pytest.raises(InputError, match="describes no layer: it has no width"):
        run.load_model(LayerCard)
    path.write_text(json.dumps(good | {"hub": "evil/model"}))
    with pytest.raises(InputError, match=r"model.json is damaged: there is no option hub"):
        run.load_model(LayerCard)


# Folders of strangers


def planted(tmp_path):
    """A finished run beside a file that is none of its business."""
    precious = tmp_path / "precious.txt"
    precious.write_text("IMPORTANT")
    finished(tmp_path / "runs/shared")
    return tmp_path / "runs/shared", precious


@pytest.mark.parametrize(
    "name", ["..", ".", "../precious.txt", "/", "a/../../precious.txt", ".lock", "a\0b", ""]
)
def test_overwriting_deletes_nothing_outside_whatever_the_folder_claims(tmp_path, name):
    run, precious = planted(tmp_path)
    (run / ".outputs").write_text(f"{name}\n{precious}\n")
    (run / ".replaced").mkdir()
    (run / ".replaced/config.yaml").write_text((run / "config.yaml").read_text())
    finished(run, accuracy=0.75)
    assert precious.read_text() == "IMPORTANT"
    assert Run.open(run).metrics() == {"accuracy": 0.75}


@pytest.mark.parametrize(
    "name",
    [
        ".lock",
        ".outputs",
        "history.csv",
        "metrics.json",
        "config.yaml",
        "checkpoints",
        "checkpoints/last.ckpt",
        "tensorboard",
        ".replaced",
        ".leaving",
        ".gone",
    ],
)
@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_links_in_a_run_directory_are_never_followed(tmp_path, name, how):
    run, precious = planted(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/config.yaml").write_text((run / "config.yaml").read_text())
    link = run / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    folder = name in ("checkpoints", "tensorboard", ".replaced", ".leaving", ".gone")
    target = tmp_path / "elsewhere" if folder else precious
    if name == "config.yaml":
        target = tmp_path / "elsewhere/config.yaml"
    link.symlink_to(target)
    with pytest.raises(InputError, match=f"{link.name} is a link"):
        Run.create(run, Config(), **{how: True})
    assert precious.read_text() == "IMPORTANT"
    assert names(tmp_path / "elsewhere") == ["config.yaml"]


def test_a_lock_that_is_also_another_file_is_not_written_to(tmp_path):
    run, precious = planted(tmp_path)
    (run / ".lock").unlink()
    os.link(precious, run / ".lock")
    with pytest.raises(InputError, match="is no file of this folder alone"):
        Run.create(run, Config(), overwrite=True)
    assert precious.read_text() == "IMPORTANT"


def test_a_pipe_in_place_of_a_file_does_not_wait(tmp_path):
    for name in ("config.yaml", ".lock"):
        folder = tmp_path / name.strip(".")
        folder.mkdir()
        os.mkfifo(folder / name)
        with pytest.raises(InputError):
            Run.create(folder, Config())


def test_an_output_behind_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    with Run.create(tmp_path / "run", Config()) as run:
        (tmp_path / "run/maps").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(InputError, match="maps is a link"):
            run.output("maps/a.tif")
    assert names(tmp_path / "elsewhere") == []


def test_a_history_that_became_a_link_is_not_appended_to(tmp_path):
    (tmp_path / "precious.csv").write_text("epoch\n")
    (tmp_path / "history.csv").symlink_to(tmp_path / "precious.csv")
    with pytest.raises(InputError, match=r"cannot write .*history.csv"):
        History(tmp_path / "history.csv").append({"epoch": 1})
    assert (tmp_path / "precious.csv").read_text() == "epoch\n"


def test_a_file_of_the_users_is_not_replaced_by_one_set_aside(tmp_path):
    run, _ = planted(tmp_path)
    (run / ".replaced").mkdir()
    (run / ".replaced/config.yaml").write_text((run / "config.yaml").read_text())
    (run / ".replaced/thesis.txt").write_text("planted")
    (run / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"both hold thesis.txt"):
        Run.create(run, Config(), overwrite=True)
    assert (run / "thesis.txt").read_text() == "mine"


# What a run learns from


def test_a_run_is_not_continued_on_other_data(tmp_path):
    data = tmp_path / "e.csv"
    data.write_text("0,1\n")
    with Run.create(tmp_path / "run", Config(), data=of_files([data])) as run:
        run.save_metrics({"accuracy": 1})
    os.utime(data, (0, 0))  # a copy of the same
    Run.create(tmp_path / "run", Config(), resume=True, data=of_files([data])).close()
    data.write_text("0,2\n")
    with pytest.raises(InputError, match=r"--resume: the data \(e.csv\) are not those"):
        Run.create(tmp_path / "run", Config(), resume=True, data=of_files([data]))


def test_a_fingerprint_tells_names_sizes_and_content(tmp_path):
    def of(**files):
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        return of_files([tmp_path / name for name in files]).digest

    large = bytes(3 * 2**20)
    middle = len(large) // 2
    digests = [
        of(a=b"1", b=b"2"),
        of(a=b"2", b=b"1"),
        of(a=b"1", c=b"2"),
        of(a=b"1"),
        of(a=large),
        of(a=large[:-1] + b"1"),
        of(a=large[:middle] + b"1" + large[middle + 1 :]),
        of(a=large + b"0"),
    ]
    assert len(set(digests)) == len(digests)
    assert of(a=b"1", b=b"2") == digests[0]
    with pytest.raises(InputError, match="absent cannot be read"):
        of_files([tmp_path / "absent"])


def test_arrays_have_a_fingerprint_too():
    one = of_arrays("x", {"x": np.arange(3), "y": None})
    assert one == of_arrays("x", {"x": torch.arange(3)})
    assert one.digest != of_arrays("x", {"x": np.arange(3.0)}).digest
    assert one.digest != of_arrays("x", {"z": np.arange(3)}).digest
    assert one.digest != of_arrays("x", {"x": np.arange(3)[::-1]}).digest


def test_data_in_memory_are_told_and_asked_for_again(tmp_path):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Takes(Options):
        data: Source

    with Run.create(tmp_path / "run", Takes(data={"x": 1})) as run:
        run.save_metrics({"accuracy": 1})
        assert run.config == {"data": "(in memory) dict"}
    with pytest.raises(InputError, match=r"trained on data in memory \(dict\).* give --data"):
        require_readable(run.config, run.path)
    assert require_readable({"data": "Cora"}, run.path) == "Cora"
    with pytest.raises(InputError, match="names no data"):
        require_readable({}, run.path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch,loss\n1,0.5\n2,half\n", "history.csv is damaged in line 3"),
        ("epoch,loss\n1\n", "history.csv is damaged in line 2"),
        ("loss\n1\n", "history.csv is damaged in line 2"),
        ("epoch\nnan\n", "history.csv is damaged in line 2"),
        ("epoch\n1.5\n", "history.csv is damaged in line 2"),
    ],
)
def test_a_damaged_history_is_refused_by_its_line(tmp_path, text, message):
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        History(tmp_path / "history.csv").rows()


def test_a_figure_of_the_history_may_be_undefined(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,auroc\n1,nan\n")
    assert math.isnan(History(tmp_path / "history.csv").rows()[0]["auroc"])


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
        run.save_model({"w": torch.zeros(1)}, LayerCard(width=1))
        run.output("maps/x")
        assert not run.writes
    assert not (tmp_path / "run").exists()
