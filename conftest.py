"""What every test shares: two threads at most, no display, no network."""

import os

import pytest

# Before numpy and torch are imported, and inherited by the programs the tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Where it is set, each of some hundred processes would compile all that it imports: ten seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """More of what is drawn at random."""
    parser.addoption(
        "--mutations",
        type=int,
        default=25,
        metavar="N",
        help="how many damaged files each reader is tried on (25)",
    )


@pytest.fixture
def mutations(request: pytest.FixtureRequest) -> int:
    """How many damaged files to try a reader on."""
    return int(request.config.getoption("mutations"))
