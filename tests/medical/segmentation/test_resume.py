"""A training that was killed goes on and ends as if it never had been.

Run as a program, the file is that training: ``test_resume.py DATA OUT`` kills itself.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from volume_files import TINY

from cl_medical.cli import main


def words(data, out, *more):
    long = [*TINY, "--epochs", "4", "--trainer.checkpoint_every", "1"]
    return ["segment", "train", "--data", str(data), "--out", str(out), *long, *more]


@pytest.mark.filterwarnings("ignore:the Dice of")
def test_a_killed_training_resumes_to_the_same_bits(made, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(words(made["data"], whole)) == 0
    child = subprocess.run(
        [sys.executable, __file__, str(made["data"]), str(killed)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert (killed / "checkpoints" / "last.ckpt").is_file()
    assert not (killed / "model.safetensors").exists()
    assert main(words(made["data"], killed, "--resume")) == 0
    for name in ("model.safetensors", "cases.csv"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name


def run_and_die(data, out):
    from cl_medical.segmentation.method import MultiDomainSegmenter

    step = MultiDomainSegmenter.training_step

    def last(self, batch, batch_idx):
        if self.current_epoch == 2 and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch, batch_idx)

    MultiDomainSegmenter.training_step = last
    main(words(data, out))


if __name__ == "__main__":
    run_and_die(*sys.argv[1:])
