"""Where the axis rows come from: a folder of published sets, a file, a published table, or our own."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from normloom.core.errors import ConfigError
from normloom.core.stage import Stage
from normloom.readers import Located, column_names, locate
from normloom.readers.opening import format_of
from normloom.schemas import axes as builtin
from normloom.settings.source_settings import FileSettings, SourceName
from normloom.tasks.tradeoff.axis_rows import SplittingAxes, axis_rows, published_axes
from normloom.tasks.tradeoff.axis_sets import AXIS_SETS, ReadAxisSet, layout_of, read_axis_set

OWN = "axes"


class AxisSource(FileSettings, ReadAxisSet):
    """Prompts of each axis: a folder that holds published sets in folders of their names, or one file; none: our own.

    A file of your own has axis and prompt, and may have reference, bad_reference (lists of replies) and split.
    """

    table: str | None = Field(None, description="published table to read instead, SYSTEM/STAGE, such as savacu/publish")
    dimensions: tuple[str, ...] = Field(
        ("safety", "value", "cultural"), description="columns of the published table that become axes"
    )

    judged: SourceName | None = Field(
        None,
        description="replies that were judged elsewhere, in AlpacaEval's layout; shown next to the build's",
    )
    judged_by: str = Field("recorded", description="who judged them, such as gpt4")

    def sets(self) -> dict[str, Located]:
        """Return the sets by layout; raises ConfigError if none is known."""
        if not self.path:
            return {OWN: locate(builtin.AXES, self.reading())}
        if Path(self.path).is_dir() and (found := self._in_folder(Path(self.path))):
            return found
        one = self.located()
        layout = layout_of(column_names(one))
        if layout is None:
            known = "; ".join(f"{name} ({', '.join(layout.columns)})" for name, layout in AXIS_SETS.items())
            raise ConfigError(f"source.path {self.path}: its columns are those of no known set; known sets: {known}")
        return {layout: one}

    def _in_folder(self, folder: Path) -> dict[str, Located]:
        """Return the sets that a folder holds: each in a folder, or in a file, of its name."""
        found = {}
        for name in AXIS_SETS:
            files = [one for one in sorted(folder.iterdir()) if one.name.partition(".")[0] == name]
            place = next((one for one in files if one.is_dir() or format_of(one.name)), None)
            if place is not None:
                inside = [one for one in sorted(place.iterdir()) if format_of(one.name)] if place.is_dir() else []
                found[name] = locate(inside[0] if len(inside) == 1 else place, self.reading())
        return found


def axis_stage(source: AxisSource, split: SplittingAxes, published: Stage | None = None) -> Stage:
    """Return the stage of the axis rows; `published` is the table that `source.table` names."""
    if source.table:
        if published is None:
            raise ConfigError(f"source.table: {source.table} is not published in this store; build it first")
        return axis_rows(published_axes(published, dimensions=source.dimensions), split)
    sets = source.sets()
    return axis_rows([read_axis_set(source, source=located, layout=name) for name, located in sets.items()], split)
