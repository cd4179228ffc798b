"""The data set card of a release, README.md: front matter for the hub, and what a reader wants to know."""

from __future__ import annotations

from typing import Any

import yaml

from normloom.exports.card import sections
from normloom.exports.card.audited import audited
from normloom.exports.card.facts import Facts
from normloom.exports.card.markdown import size_category
from normloom.exports.features import features
from normloom.exports.licences import front_matter
from normloom.exports.tables import Written


def card(facts: Facts) -> str:
    """Return the text of README.md."""
    matter = yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True, width=120)
    order = (
        sections.opening,
        sections.use,
        sections.content,
        sections.origin,
        sections.making,
        sections.figures,
        audited,
        sections.limits,
        sections.changes,
        sections.licence,
        sections.citation,
        sections.take_down,
    )
    body = "\n".join(line for section in order for line in section(facts))
    return f"---\n{matter}---\n\n{body.rstrip()}\n"


def _front_matter(facts: Facts) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "pretty_name": facts.name,
        **front_matter(facts.rights.licences),
        **({"language": facts.language} if facts.language else {}),
        "size_categories": [size_category(facts.tables[0].rows)],
        **({"task_categories": list(facts.about.tasks)} if facts.about.tasks else {}),
        "tags": [
            *facts.about.tags,
            "synthetic",
            "normloom",
            *(["not-for-all-audiences"] if facts.about.warning else []),
        ],
        "configs": [_config(written, default=position == 0) for position, written in enumerate(facts.tables)],
    }
    described = [_info(written) for written in facts.tables if written.form != "csv"]  # whose types are the reader's
    return {**fields, **({"dataset_info": described} if described else {})}


def _config(written: Written, *, default: bool) -> dict[str, Any]:
    files = [{"split": file.split, "path": file.path} for file in written.files]
    return {"config_name": written.shown.name, "data_files": files, **({"default": True} if default else {})}


def _info(written: Written) -> dict[str, Any]:
    return {
        "config_name": written.shown.name,
        "features": features(written.schema, written.media),
        "splits": [{"name": file.split, "num_bytes": file.bytes, "num_examples": file.rows} for file in written.files],
        "download_size": sum(file.bytes for file in written.files),
        "dataset_size": sum(file.bytes for file in written.files),
    }
