"""A section of the report: where its figures come from and how they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from normloom.report.blocks import Block
from normloom.report.material import Material

Data = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One question that the report answers.

    `collect` returns plain data that can be written as JSON, None if the build has nothing to say to it;
    `draw` shows that data and reads nothing else.
    """

    name: str
    title: str
    collect: Callable[[Material], Data | None]
    draw: Callable[[Data], Iterator[Block]]
