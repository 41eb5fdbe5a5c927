"""One self-contained HTML page for a run: text, tables, pictures; opens without a network.

The page carries its style and its figures. A content security policy in it forbids every request.
What the caller hands over is escaped, so a class named ``<script>`` is a name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cl_core._version import __version__
from cl_core.commands.options import flat_options
from cl_core.report.figures import MISSING
from cl_core.report.panels import figure_pictures
from cl_core.runs import write_atomic

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

__all__ = ["Report"]

# A column of these is set flush right: numbers with a spread, a unit of per cent or neither.
_NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?( ?± ?[\d.]+)?( ?%)?|nan|-?inf")


class Report:
    """A page built from top to bottom; each method returns the report, so calls can be chained.

    Args:
        title: Heading of the page.
        subtitle: A line below it.

    Example:
        >>> report = Report("ARIEL on Cora").section("Scores")
        >>> _ = report.table([{"method": "ARIEL", "accuracy": 0.84}], "Test accuracy.")
        >>> "<td>ARIEL</td>" in report.html()
        True
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._sections: list[dict[str, Any]] = []
        self._figures = 0
        self._scripted = False

    def section(self, title: str) -> Report:
        """Start a section; it is listed in the contents."""
        anchor = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        taken = {section["anchor"] for section in self._sections}
        number = 2
        unique = anchor
        while unique in taken:
            unique, number = f"{anchor}-{number}", number + 1
        self._sections.append({"title": title, "anchor": unique, "blocks": []})
        return self

    def text(self, text: str) -> Report:
        """Add plain text; empty lines separate paragraphs."""
        paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
        return self._add("text", paragraphs=paragraphs)

    def metrics(self, values: Mapping[str, object]) -> Report:
        """Add the figures to be seen first, large, a name below each."""
        return self._add("metrics", items=[(name, _shown(value)) for name, value in values.items()])

    def configuration(self, values: Mapping[str, object], caption: str = "Options") -> Report:
        """Add options and their values, folded away until opened; nested ones get dotted names."""
        items = [(name, _shown(value)) for name, value in flat_options(values).items()]
        return self._add("configuration", items=items, caption=caption)

    def table(self, rows: Sequence[Mapping[str, object]], caption: str = "") -> Report:
        """Add a table.

        Args:
            rows: A mapping a row from column heading to value; columns appear in the order in
                which they first occur, a missing value as a dash, floats with four digits.
            caption: A sentence above it.
        """
        columns = list(dict.fromkeys(name for row in rows for name in row))
        cells = [[_shown(row.get(name)) for name in columns] for row in rows]
        numeric = [all(_is_numeric(row[column]) for row in cells) for column in range(len(columns))]
        return self._add("table", columns=columns, rows=cells, numeric=numeric, caption=caption)

    def links(self, places: Mapping[str, str]) -> Report:
        """Add links to other pages that lie near this one.

        Args:
            places: Where each leads, as a path relative to this page, by what it says.
        """
        items = [(text, quote(Path(place).as_posix())) for text, place in places.items()]
        return self._add("links", items=items)

    def figure(self, figure: Figure, caption: str = "") -> Report:
        """Add a matplotlib figure.

        It becomes vector graphics with black ink in the page's text colour, its panels beside each
        other as far as there is room; one with very many elements becomes a picture on white.

        Args:
            figure: Left unchanged; close it yourself if pyplot made it.
            caption: A sentence below it; also its description for screen readers.
        """
        self._figures += 1
        pictures = figure_pictures(figure, f"figure{self._figures}")
        return self._add("figure", pictures=pictures, caption=caption)

    def block(self, block: Markup, caption: str = "") -> Report:
        """Add HTML made elsewhere, such as a contact sheet or an explorer.

        Args:
            block: Goes into the page unescaped, scripts included; ``Markup`` says that its maker
                escaped what users wrote.
            caption: A sentence above it.

        Raises:
            ValueError: If the block is plain text.
        """
        if not hasattr(block, "__html__"):
            raise ValueError("need HTML marked as safe (markupsafe.Markup); use text() for text")
        self._scripted |= "<script" in block
        return self._add("block", html=block, caption=caption)

    def html(self) -> str:
        """The page as text."""
        from jinja2 import Environment

        source = files("cl_core").joinpath("templates/report.html.j2").read_text("utf-8")
        template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
            source
        )
        return template.render(
            title=self.title,
            subtitle=self.subtitle,
            sections=self._sections,
            contents=[section for section in self._sections if section["title"]],
            scripted=self._scripted,
            version=__version__,
            written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"),
        )

    def save(self, path: str | Path) -> Path:
        """Write the page; it appears complete or not at all.

        Args:
            path: Usually ``report.html`` in the run directory; an earlier one is replaced.

        Returns:
            The path.
        """
        path = Path(path)
        with write_atomic(path) as beside:
            beside.write_text(self.html(), encoding="utf-8")
        return path

    def _add(self, kind: str, **content: Any) -> Report:
        if not self._sections:
            self._sections.append({"title": "", "anchor": "top", "blocks": []})
        self._sections[-1]["blocks"].append({"kind": kind, **content})
        return self


def _shown(value: object) -> str:
    if value is None:
        return MISSING
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _is_numeric(text: str) -> bool:
    return text == MISSING or _NUMBER.fullmatch(text) is not None
