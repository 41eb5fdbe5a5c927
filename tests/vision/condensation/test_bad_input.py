from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from cl_vision.cli import main

QUICK = {
    "--method": "dcc",
    "--width": "4",
    "--depth": "1",
    "--inner_loop": "1",
    "--outer_loop": "1",
    "--network_epochs": "1",
    "--real_batch": "4",
    "--trainer.tensorboard": "false",
    "--trainer.progress": "false",
    "--trainer.accelerator": "cpu",
}


def words(**options) -> list[str]:
    """The command's words, quick options unless others are given."""
    given = QUICK | {f"--{name}": str(value) for name, value in options.items()}
    return ["condense", *(word for pair in given.items() for word in pair)]


def picture(path, size=(8, 8), channels=3, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size if channels == 1 else (*size, channels)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def folder(root, counts=(("ash", 6), ("oak", 6)), **kind):
    """A folder of pictures for each class."""
    for place, (name, count) in enumerate(counts):
        for k in range(count):
            picture(root / name / f"{k}.png", seed=10 * place + k, **kind)
    return root


def refused(capsys, argv) -> str:
    """What the program says in one line when it refuses."""
    assert main(argv) == 2
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    assert "Traceback" not in told
    return told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ipc": 0}, "ipc must be at least 1, got 0"),
        ({"method": "D"}, "got 'D': did you mean dc or dsa or dcc?"),
        ({"method": "dsad"}, "got 'dsad': did you mean dsa or dsac?"),
        ({"outer_warmup": 2}, "outer_warmup must be at most outer_loop, 1, got 2"),
        ({"inner_warmup": 2}, "inner_warmup must be at most inner_loop, 1, got 2"),
        ({"depth": 4}, "8 x 8 pixels do not allow"),
        ({"depth": 5}, "depth must be from 1 to 4, got 5"),
        ({"ipc": 140}, "8 (139)"),
        ({"strategy": "crop_blur"}, "no operation 'blur'"),
        ({"norm": "group", "width": 6}, "do not divide width 6"),
        ({"image_lr": 0}, "image_lr must be positive"),
        ({"trainer.precision": "16-mixed"}, "second derivatives"),
        ({"trainer.devices": 2}, "trainer.devices must be 1"),
        ({"real_chunk": 0}, "real_chunk must be at least 1"),
        ({"time_budget": -1}, "time_budget must be positive"),
    ],
)
def test_an_option_that_does_not_fit_is_one_line(tmp_path, capsys, options, told):
    line = refused(capsys, words(data="digits", out=tmp_path / "out", **options))
    assert told in line
    assert not (tmp_path / "out").exists()


def test_data_that_do_not_fit_are_one_line_and_leave_nothing(tmp_path, capsys):
    out = tmp_path / "out"

    def told(name: str, **options) -> str:
        line = refused(capsys, words(data=tmp_path / name, out=out, **options))
        assert not out.exists()
        return line

    folder(tmp_path / "one", (("ash", 6),))
    assert "1 class of labelled images" in told("one")

    folder(tmp_path / "few", (("ash", 6), ("oak", 3), ("elm", 2)))
    assert "elm (1), oak (2): lower it" in told("few", ipc=3)

    folder(tmp_path / "sizes")
    picture(tmp_path / "sizes" / "oak" / "0.png", size=(8, 10))
    assert "give --image_size" in told("sizes")
    assert main(words(data=tmp_path / "sizes", out=out, image_size=8)) == 0
    shutil.rmtree(out)
    capsys.readouterr()

    folder(tmp_path / "mixed")
    for k in range(6):
        picture(tmp_path / "mixed" / "oak" / f"{k}.png", channels=1)
    assert "--channels" in told("mixed")
    assert main(words(data=tmp_path / "mixed", out=out, channels=1)) == 0
    shutil.rmtree(out)
    capsys.readouterr()

    folder(tmp_path / "broken")
    (tmp_path / "broken" / "oak" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    assert "1.png" in told("broken")

    assert "nowhere" in told("nowhere")


def test_no_space_is_told_before_the_work(tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**19))
    line = refused(capsys, words(data="digits", out=tmp_path / "deep" / "out"))
    assert "MB are free: make room" in line
    assert not (tmp_path / "deep").exists()


def test_a_run_is_resumed_under_its_own_options_only(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(words(data="digits", out=out)) == 0
    capsys.readouterr()
    for changed in ({"image_lr": 0.2}, {"method": "dc"}, {"ipc": 2}):
        line = refused(capsys, [*words(data="digits", out=out, **changed), "--resume"])
        assert next(iter(changed)) in line
    folder(tmp_path / "others")
    assert "data" in refused(capsys, [*words(data=tmp_path / "others", out=out), "--resume"])


def test_a_set_is_assessed_on_images_like_its_own_only(tmp_path, capsys):
    data, out = folder(tmp_path / "colour"), tmp_path / "out"
    assert main(words(data=data, out=out)) == 0
    capsys.readouterr()
    assess = ["assess", "--run", str(out), "--epochs", "1", "--augmented_epochs", "0", "--data"]
    picture_sets = {
        "grey": (folder(tmp_path / "grey", channels=1), "1 channels, but the set has 3"),
        "large": (folder(tmp_path / "large", size=(16, 16)), "16 x 16 pixels, but the set"),
        "named": (folder(tmp_path / "named", (("ash", 6), ("yew", 6))), "its classes are not"),
    }
    for other, told in picture_sets.values():
        assert told in refused(capsys, [*assess, str(other)])
    assert "--run" in refused(capsys, ["assess", "--run", str(data)])
    line = refused(capsys, ["assess", "--run", str(out), "--architectures", "[convnet, vit]"])
    assert "vit" in line


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--steps", "6"], "--steps 6: 10 classes"),
        (["--ipc", "150"], "fewer images than that"),
        (["--strategy", "blur"], "no operation 'blur'"),
        (["--memories", "[]"], "memories must name at least one"),
        (["--memories", "[random, random]"], "each once"),
        (["--depth", "4"], "8 x 8 pixels do not allow"),
        (["--protocol", "both"], "got 'both'"),
    ],
)
def test_continual_learning_is_refused_before_it_starts(tmp_path, capsys, options, told):
    argv = ["continual", "--data", "digits", "--out", str(tmp_path / "out"), *options]
    assert told in refused(capsys, argv)
    assert not (tmp_path / "out").exists()


def test_domains_must_be_alike(tmp_path, capsys):
    grey = folder(tmp_path / "grey", channels=1)
    line = refused(
        capsys,
        ["continual", "--data", f"[digits, {tmp_path / 'none'}]", "--out", str(tmp_path / "out")],
    )
    assert "none" in line
    colour = folder(tmp_path / "colour")
    argv = ["continual", "--data", f"[{grey}, {colour}]", "--out", str(tmp_path / "out")]
    argv += ["--ipc", "1"]
    assert "3 channels of 8 x 8 pixels" in refused(capsys, argv)
