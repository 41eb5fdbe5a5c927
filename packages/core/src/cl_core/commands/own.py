"""The verbs that every program has beside its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from cl_core.checks import OptionError
from cl_core.commands.options import Options
from cl_core.commands.vocabulary import CommandTable

__all__ = [
    "OWN_COMMANDS",
    "CompareConfig",
    "CompletionConfig",
    "ExportConfig",
    "ListConfig",
    "Program",
]


@dataclass(frozen=True, kw_only=True)
class ListConfig(Options):
    """List what a package knows by name: recipes, data, backbones, methods.

    Args:
        what: What to list; nothing for which lists there are. Words after it pick the rows that
            hold them all.
    """

    words: ClassVar[str] = "what"

    what: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Options):
    """Lay runs side by side: curves over each other, figures with their spread, links to each page.

    Args:
        runs: The run directories, in the order of the page.
        out: Where to write.
        overwrite: Replace the results in `out`.
    """

    words: ClassVar[str] = "runs"

    runs: tuple[Path, ...] = ()
    out: Path = Path("runs/comparison")
    overwrite: bool = False

    def __post_init__(self) -> None:
        if len(self.runs) < 2:
            raise OptionError("compare needs two runs at least, as in: compare runs/a runs/b")


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Options):
    """Make a folder of a run's model that can be pushed to a model hub, and is loaded offline.

    Args:
        run: Run directory that holds a model.
        hub: The folder: card, weights, how to rebuild the model, its options. It must be new or
            empty; nothing is sent anywhere.
        name: Heading of the card; by default the folder's name.
        license: What the card says, such as `apache-2.0` or `cc-by-4.0`; think of the data's, too.
    """

    run: Path
    hub: Path
    name: str | None = None
    license: str = "unknown"


@dataclass(frozen=True, kw_only=True)
class CompletionConfig(Options):
    """Print what makes a shell complete verbs, options and values; evaluate it in its start file.

    Args:
        shell: Whose language.
    """

    words: ClassVar[str] = "shell"

    shell: Literal["bash", "zsh", "fish"] = "bash"


@dataclass(frozen=True, kw_only=True)
class Program:
    """What these verbs have to know of the program they belong to.

    Attributes:
        name: Such as ``cl-graphs``.
        commands: Its verbs.
        lists: Further lists by name: the function that makes the rows, as ``module:function``.
    """

    name: str
    commands: CommandTable
    lists: dict[str, str]


OWN_COMMANDS: CommandTable = {
    "list": (ListConfig, "cl_core.commands.listing:list_names"),
    "compare": (CompareConfig, "cl_core.report.comparison:compare"),
    "export": (ExportConfig, "cl_core.commands.export:export"),
    "completion": (CompletionConfig, "cl_core.commands.completion:completion_script"),
}
