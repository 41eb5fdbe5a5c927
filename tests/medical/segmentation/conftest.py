"""A run trained on two small domains, for all files that need one."""

import pytest
from volume_files import TINY, domain, manifest

from cl_medical.cli import main


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Two domains, a third for later, and a run trained on the two."""
    folder = tmp_path_factory.mktemp("data")
    knee = domain(folder, "knee", axes="RAS", raw=(1, 2), classes=("femur", "tibia"), bright=100)
    hand = domain(folder, "hand", axes="LPS", raw=(7,), classes=("bone",), bright=4000)
    hip = domain(folder, "hip", axes="RPS", raw=(3,), classes=("femur",), bright=9)
    data = manifest(folder, knee=knee, hand=hand)
    new = manifest(folder, "new.yaml", hip=hip)
    run = folder / "run"
    code = main(["segment", "train", "--data", str(data), "--out", str(run), *TINY])
    assert code == 0
    return {"folder": folder, "data": data, "new": new, "run": run, "knee": knee, "hand": hand}


@pytest.fixture
def refused(capsys):
    """Run a command that must end in one line, and give that line."""

    def run(*arguments, code=2):
        assert main(["segment", *map(str, arguments)]) == code
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert "Traceback" not in line
        return line

    return run
