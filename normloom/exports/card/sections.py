"""The sections of a card, each as lines of Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from normloom.core.rows.text import counted
from normloom.exports.card import made
from normloom.exports.card.changes import lines as change_lines
from normloom.exports.card.facts import Facts
from normloom.exports.card.markdown import block, code, table, text
from normloom.exports.licences import identifier, restrictions
from normloom.exports.origins import about
from normloom.exports.tables import Written
from normloom.history.public import public
from normloom.models.registry import is_random
from normloom.report.material import Material
from normloom.report.sections import head
from normloom.settings.faces.about import About


def opening(facts: Facts) -> Iterator[str]:
    """Yield title, warnings, summary, version and intended use."""
    main, words = facts.tables[0], facts.about
    yield from (f"# {text(facts.name)}", "")
    yield from _warned(words.warning, *map(text, facts.rights.warnings), *_worth(facts))
    if words.summary:
        yield from (words.summary, "")
    splits = ", ".join(f"{text(file.split)} {file.rows:,}" for file in main.files)
    yield f"Version {facts.release.version} of {facts.release.created:%Y-%m-%d}: {counted(main.rows)} ({splits})."
    yield from ("", *_intended(words))


def _worth(facts: Facts) -> Iterator[str]:
    """Yield what models make of a release that is no data to go by."""
    built = [head.collect(material) for material in facts.materials]
    if any(is_random(model["engine"]) for one in built for model in one["models"]):
        yield "Scripted models took part: what they wrote and judged is random. This release is a test of the pipeline."
    if any(one["embedded"] for one in built):
        yield (
            "A model of 135 million parameters took part: what it writes, judges and rates is near chance. The figures "
            "show that the pipeline works, not that the data is good."
        )


def _warned(*texts: str) -> Iterator[str]:
    for warning in filter(None, texts):
        yield from (f"> **Warning.** {warning}", "")


def _intended(words: About) -> Iterator[str]:
    if words.intended:
        yield from (f"**Intended use.** {words.intended}", "")
    if words.not_for:
        yield from (f"**Not for.** {words.not_for}", "")


def use(facts: Facts) -> Iterator[str]:
    """Yield how the data set is read and verified."""
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


def content(facts: Facts) -> Iterator[str]:
    """Yield the tables with their splits and columns."""
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
    alike: dict[tuple[Any, ...], list[Written]] = {}
    for written in facts.tables:
        alike.setdefault((written.schema, *facts.meanings(written).items()), []).append(written)
    for group in alike.values():
        written, described = group[0], facts.meanings(group[0])
        yield from (f"### Columns of {', '.join(text(one.shown.name) for one in group)}", "")
        yield from table(
            ("column", "type", "meaning"),
            (
                (code(field.name), code(_type(written, field)), text(described.get(field.name, "")))
                for field in written.schema
            ),
        )


def _type(written: Written, field: Any) -> str:
    return written.media.get(field.name) or str(field.type).replace("element: ", "")


def origin(facts: Facts) -> Iterator[str]:
    """Yield the sources, and what they hold of people."""
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
    yield from (line for origin in facts.rights.origins if origin.statement for line in (origin.statement, ""))
    if facts.about.personal:
        yield from (f"**Personal data.** {facts.about.personal}", "")


def making(facts: Facts) -> Iterator[str]:
    """Yield the stages, models and settings that made it."""
    lock, material = facts.material.lock, facts.material
    profile = f" under the profile {code(public(lock.profile))}" if lock.profile else ""
    yield from ("## How it was made", "")
    yield from (
        f"Normloom built it{profile} (build {code(lock.build)}).",
        "Each stage makes a table from those that it reads. Rows that the method takes out are dropped, rows that a",
        "check or an error takes out are quarantined, both with a reason.",
        "",
    )
    yield from made.stages(material)
    for earlier in facts.before:
        yield from (f"It starts from tables of {code(earlier.lock.system)} (build {code(earlier.lock.build)}):", "")
        yield from made.stages(earlier)
    if lines := made.models(facts.materials):
        yield from ("### Models", "", *lines)
    if lines := made.settings(material):
        yield from ("### Thresholds and other settings", "", *lines)
    for earlier in facts.before:
        if lines := made.settings(earlier):
            yield from (f"### Settings of {text(earlier.lock.system)}", "", *lines)
    if facts.command:
        yield from ("To build it again:", "", *block(facts.command, "sh"))


def figures(facts: Facts) -> Iterator[str]:
    """Yield figures, agreement and checks."""
    if lines := list(made.figures(facts.material)):
        yield from ("## Figures", "", *lines)


def limits(facts: Facts) -> Iterator[str]:
    """Yield what the release is not, as far as the build knows."""
    material = facts.material
    built = head.collect(material)
    told = list(dict.fromkeys(limit for one in facts.materials for limit in _limits_of(one)))
    told += [
        f"The check {code(one['check'])} of {code(one['stage'])} did not pass: {text(one['found'])}."
        for one in built["checks"]
    ]
    if count := made.undefined(material):
        told.append(f"{counted(count, 'figure')} without a value; their tables say why.")
    if material.gone:
        told.append(f"Tables no longer in the store, and so not described here: {text(', '.join(material.gone))}.")
    if told:
        yield from ("## Known limits", "", *(f"- {limit}" for limit in told), "")


def _limits_of(material: Material) -> list[str]:
    limits = about(material.lock.system).limits
    return [limit.text for limit in limits if limit.stage is None or limit.stage in material.manifests]


def changes(facts: Facts) -> Iterator[str]:
    """Yield the change log."""
    yield from ("## Changes", "", *change_lines(list(facts.changes)), "")


def licence(facts: Facts) -> Iterator[str]:
    """Yield the licences of sources and rows, and what they forbid."""
    yield from ("## Licence", "")
    for origin in facts.rights.origins:
        licence = origin.terms.licence
        named = f"under {text(licence)}" if identifier(licence) != "unknown" else "of unknown licence"
        yield f"- The source ({text(origin.name)}) is {named}. {' '.join(map(text, restrictions(licence)))}".rstrip()
    for own, rows in facts.rights.rows.items():
        yield f"- {counted(rows)} {'under ' + text(own) if own else 'of unknown licence'}, by a column of the rows."
    yield "- Models have licences of their own (see Models), some of which bind what they wrote."
    yield ""


def citation(facts: Facts) -> Iterator[str]:
    """Yield how to cite the release, the method and the sources."""
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


def take_down(_: Facts) -> Iterator[str]:
    """Yield how to report a row to the publisher."""
    yield from (
        "## Taking rows back",
        "",
        "Every row has an id that does not change between versions. To have a row and everything derived from it",
        "removed, name its id (`row_id`, or `chosen_id`, `rejected_id` and `completion_id` of pairs) to the publisher.",
    )
