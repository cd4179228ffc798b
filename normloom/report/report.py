"""A report as data: every section that applies to a build."""

from __future__ import annotations

from typing import Any

from normloom.report.material import Material
from normloom.report.section import Section
from normloom.report.sections import head, products, work
from normloom.report.sections.data import (
    contamination,
    duplicates,
    evidence,
    examples,
    media,
    references,
    rows,
    splits,
)
from normloom.report.sections.results import (
    acceptance,
    figures,
    judgement,
    labels,
    margins,
    preferences,
    trade_offs,
)

SECTIONS: tuple[Section, ...] = tuple(
    module.SECTION
    for module in (
        head,
        judgement,
        trade_offs,
        examples,
        evidence,
        rows,
        labels,
        acceptance,
        margins,
        media,
        preferences,
        products,
        splits,
        duplicates,
        contamination,
        figures,
        references,
        work,
    )
)


def report(material: Material) -> dict[str, Any]:
    """Return the report of a build: system, title, build and sections, each with name, title and data."""
    collected = [(section, section.collect(material)) for section in SECTIONS]
    return {
        "system": material.lock.system,
        "title": material.title,
        "build": material.lock.build,
        "sections": [
            {"name": section.name, "title": section.title, "data": data}
            for section, data in collected
            if data is not None
        ],
    }
