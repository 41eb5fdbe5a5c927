from __future__ import annotations

from cl_core.commands.outcome import Outcome, text_table


def test_a_table_aligns_names_left_and_figures_right():
    rows = [{"model": "ARIEL", "accuracy": "84.0"}, {"model": "raw", "accuracy": "9.5"}]
    assert text_table(rows) == ["model  accuracy", "ARIEL      84.0", "raw         9.5"]
    assert text_table([]) == []


def test_an_outcome_names_only_files_that_are_there(tmp_path):
    (tmp_path / "report.html").touch()
    outcome = Outcome(out=tmp_path, metrics={}, lines=["done"], files=["report.html", "absent"])
    assert str(outcome) == f"done\n{tmp_path / 'report.html'}"
