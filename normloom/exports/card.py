"""The data set card of a release, README.md: front matter for the hub, and what a reader wants to know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from normloom.exports import made
from normloom.exports.changes import Change
from normloom.exports.changes import lines as change_lines
from normloom.exports.features import features
from normloom.exports.licences import front_matter, identifier, restrictions
from normloom.exports.markdown import block, code, counted, size_category, table, text
from normloom.exports.origins import Rights
from normloom.exports.public import public
from normloom.exports.tables import Written
from normloom.history.releases import ReleaseRecord
from normloom.report.material import Material
from normloom.report.sections import head
from normloom.settings.about import About


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a card is written from; `tables` has the release first. `repository` is where it will be on a hub."""

    material: Material
    about: About
    rights: Rights
    release: ReleaseRecord
    tables: Sequence[Written]
    changes: Sequence[Change]
    form: str
    command: str
    repository: str | None = None

    @property
    def name(self) -> str:
        """The title of the data set."""
        return self.material.title

    def meanings(self, written: Written) -> Mapping[str, str]:
        """Return what the columns of a table mean, as far as it is known."""
        stage = written.shown.ref.stage
        return self.about.meanings(stage, written.schema.names, release=stage == self.release.stage)

    @property
    def language(self) -> list[str]:
        """The languages of the sources, each once."""
        return list(dict.fromkeys(code for origin in self.rights.origins for code in origin.terms.language))


def card(facts: Facts) -> str:
    """Return the text of README.md."""
    matter = yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True, width=120)
    sections = (
        _opening,
        _use,
        _content,
        _origin,
        _making,
        _figures,
        _limits,
        _changes,
        _licence,
        _citation,
        _take_down,
    )
    body = "\n".join(line for section in sections for line in section(facts))
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
        "configs": [_config(written, default=place == 0) for place, written in enumerate(facts.tables)],
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


def _opening(facts: Facts) -> Iterator[str]:
    main, about = facts.tables[0], facts.about
    yield from (f"# {text(facts.name)}", "")
    yield from _warned(about.warning, *map(text, facts.rights.warnings))
    if about.summary:
        yield from (about.summary, "")
    splits = ", ".join(f"{text(file.split)} {file.rows:,}" for file in main.files)
    yield f"Version {facts.release.version} of {facts.release.created:%Y-%m-%d}: {counted(main.rows)} ({splits})."
    yield from ("", *_intended(about))


def _warned(*texts: str) -> Iterator[str]:
    for warning in filter(None, texts):
        yield from (f"> **Warning.** {warning}", "")


def _intended(about: About) -> Iterator[str]:
    if about.intended:
        yield from (f"**Intended use.** {about.intended}", "")
    if about.not_for:
        yield from (f"**Not for.** {about.not_for}", "")


def _use(facts: Facts) -> Iterator[str]:
    where = facts.repository or "PATH_OF_THIS_FOLDER"
    others = [written.shown.name for written in facts.tables[1:]]
    lines = ["import datasets", "", f'data = datasets.load_dataset("{where}")  # {facts.tables[0].shown.name}']
    lines += [f'{name} = datasets.load_dataset("{where}", "{name}")' for name in others[:1]]
    yield from ("## How to read it", "", *block("\n".join(lines), "python"))
    yield from (
        "`sha256sum --check SHA256SUMS` verifies a copy; `normloom.lock.yaml` says which tables, models and settings",
        "it was made with.",
        "",
    )


def _content(facts: Facts) -> Iterator[str]:
    yield from ("## What it holds", "")
    yield from table(
        ("configuration", "rows", "splits"),
        (
            (
                code(written.shown.name),
                text(written.rows),
                text(", ".join(f"{file.split} {file.rows:,}" for file in written.files)),
            )
            for written in facts.tables
        ),
    )
    for written in facts.tables:
        described = facts.meanings(written)
        yield from (f"### Columns of {text(written.shown.name)}", "")
        yield from table(
            ("column", "type", "meaning"),
            (
                (code(field.name), code(_type(written, field)), text(described.get(field.name, "")))
                for field in written.schema
            ),
        )


def _type(written: Written, field: Any) -> str:
    return written.media.get(field.name) or str(field.type).replace("element: ", "")


def _origin(facts: Facts) -> Iterator[str]:
    yield from ("## Where it comes from", "")
    yield from table(
        ("source", "read by", "licence", "languages"),
        (
            (
                text(origin.name),
                code(origin.system),
                text(origin.terms.licence or "unknown"),
                text(", ".join(origin.terms.language)),
            )
            for origin in facts.rights.origins
        ),
    )
    yield from (line for origin in facts.rights.origins if origin.told for line in (origin.told, ""))
    if facts.about.personal:
        yield from (f"**Personal data.** {facts.about.personal}", "")


def _making(facts: Facts) -> Iterator[str]:
    lock, material = facts.material.lock, facts.material
    profile = f" under the profile {code(public(lock.profile))}" if lock.profile else ""
    yield from ("## How it was made", "")
    yield from (
        f"Normloom built it{profile} (build {code(lock.build)}). Each stage makes a table of the tables it reads. Rows",
        "that the method takes out are dropped, rows that a check or an error takes out are quarantined, both with a",
        "reason.",
        "",
    )
    yield from made.stages(material)
    if lines := made.models(material):
        yield from ("### Models", "", *lines)
    if lines := made.settings(material):
        yield from ("### Thresholds and other settings", "", *lines)
    if facts.command:
        yield from ("To build it again:", "", *block(facts.command, "sh"))


def _figures(facts: Facts) -> Iterator[str]:
    if lines := list(made.figures(facts.material)):
        yield from ("## Figures", "", *lines)


def _limits(facts: Facts) -> Iterator[str]:
    material = facts.material
    built = head.collect(material)
    told = [limit.text for limit in facts.about.limits if limit.stage is None or limit.stage in material.lock.stages]
    if built["embedded"]:
        told.append(head.WORTH)
    if any(model["engine"].startswith("scripted") for model in built["models"]):
        told.append(
            "Scripted models took part: what they wrote and judged is random. This release is a test of the pipeline."
        )
    told += [
        f"The check {code(one['check'])} of {code(one['stage'])} did not pass: {text(one['found'])}."
        for one in built["checks"]
    ]
    if count := made.undefined(material):
        told.append(f"{counted(count, 'figure')} without a value; their tables say why.")
    if material.gone:
        told.append(f"Tables no longer in the store, of which this card is silent: {text(', '.join(material.gone))}.")
    if told:
        yield from ("## Known limits", "", *(f"- {limit}" for limit in told), "")


def _changes(facts: Facts) -> Iterator[str]:
    yield from ("## Changes", "", *change_lines(list(facts.changes)), "")


def _licence(facts: Facts) -> Iterator[str]:
    yield from ("## Licence", "")
    for origin in facts.rights.origins:
        licence = origin.terms.licence
        named = f"under {text(licence)}" if identifier(licence) != "unknown" else "of unknown licence"
        yield f"- The source ({text(origin.name)}) is {named}. {' '.join(map(text, restrictions(licence)))}".rstrip()
    for own, rows in facts.rights.rows.items():
        yield f"- {counted(rows)} {'under ' + text(own) if own else 'of unknown licence'}, by a column of the rows."
    yield "- Models have licences of their own (see Models), some of which bind what they wrote."
    yield ""


def _citation(facts: Facts) -> Iterator[str]:
    release = facts.release
    own = (
        f"@misc{{{release.system}_{release.version.replace('.', '_')},\n"
        f"    title = {{{facts.name}, version {release.version}, rebuilt with Normloom}},\n"
        f"    year = {{{release.created:%Y}}},\n"
        f"    note = {{content {release.content}}}\n}}"
    )
    yield from ("## How to cite", "", *block(own, "bibtex"))
    if facts.about.citation:
        yield from ("The method:", "", *block(facts.about.citation, "bibtex"))
    for citation in dict.fromkeys(origin.terms.citation for origin in facts.rights.origins if origin.terms.citation):
        yield from ("The source:", "", *block(citation, "bibtex" if citation.lstrip().startswith("@") else ""))


def _take_down(_: Facts) -> Iterator[str]:
    yield from (
        "## Taking rows back",
        "",
        "Every row has an id that does not change between versions. To have a row and all that came of it removed,",
        "name its id (`row_id`, or `chosen_id`, `rejected_id` and `completion_id` of pairs) to whoever published this.",
    )
