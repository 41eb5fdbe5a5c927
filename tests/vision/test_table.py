"""One table of methods: what it says is what the package does."""

import ast
import dataclasses
from pathlib import Path
from typing import get_args

import pytest
from torch import nn

import cl_vision
from cl_core.commands.options import hints_of
from cl_vision.cards import ImageCard
from cl_vision.config import PretrainConfig
from cl_vision.hyper import OptimizerHyper
from cl_vision.methods.table import METHODS

SOURCE = Path(cl_vision.__file__).parent


class Net(nn.Module):
    out_features = 8


def test_the_options_are_those_of_the_table():
    assert get_args(hints_of(PretrainConfig)["method"]) == tuple(METHODS)
    fields = {field.name: field for field in dataclasses.fields(PretrainConfig)}
    assert all(dataclasses.is_dataclass(fields[name].default_factory) for name in METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_every_row_leads_to_a_module_and_what_lies_beside_it(name):
    row = METHODS[name]
    config = PretrainConfig(data="digits", out="x", method=name)
    assert row.load().__module__ == row.module.partition(":")[0]
    assert row.part("projector_card") is not None
    assert config.optimizer_hyper() == OptimizerHyper(
        learning_rate=row.learning_rate,
        schedule=row.schedule,
        warmup_epochs=10.0 if row.schedule == "step" else 0.0,
    )


def test_a_method_is_chosen_in_the_table_alone():
    """A comparison of a method's name would be a place that the next method has to touch too."""
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Compare) and ast.unparse(node.left).endswith(".method"):
                pytest.fail(f"{file.name}, line {node.lineno}: {ast.unparse(node)}")


def test_a_card_without_a_projector_is_read_as_it_was_written():
    card = ImageCard(
        architecture="resnet-8-16",
        in_channels=1,
        stem="cifar",
        image_size=None,
        output_stride=32,
        out_features=16,
        mean=(0.5,),
        std=(0.25,),
        method="own",
        name="Mine",
        view_size=8,
    )
    assert ImageCard.of_record(card.record(), "model.json") == card
