"""What differs between the keys of two tables, field by field."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

SHORT = 60  # characters of a value that is shown next to its field
MOST_LINES = 24  # of one diff
MOST_CHANGES = 12  # described one by one
NAMED = 3  # fields that a summary names
SOURCE = "source."
CODE = "code"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One field that differs, by its path, such as `arguments.template.sections.context` or `inputs[0]`.

    Values are JSON types. `upstream` is the stage whose table is meant if the field is one that is read.
    """

    field: str
    kind: Literal["changed", "added", "removed"] = "changed"
    old: Any = None
    new: Any = None
    upstream: str | None = None


def compare(old: Any, new: Any, field: str = "") -> list[Change]:
    """Return the differences of two JSON values; those of lists are compared after aligning equal elements."""
    if old == new:
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return list(_by_name(old, new, field))
    if _is_list(old) and _is_list(new):
        return list(_in_order(old, new, field))
    return [Change(field=field, old=old, new=new)]


def compare_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return the differences of the fields of two keys; names of code count only if the code is other code."""
    found = compare(old, new)
    if any(change.field == "format" for change in found):  # what is recorded of code then differs in any case
        return [change for change in found if not _is_of_code(change) and change.kind == "changed"]
    if old.get(CODE) == new.get(CODE):
        return [change for change in found if not _is_of_code(change)]
    moved = {change.old for change in found if _is_symbol(change) and change.kind == "removed"}
    moved &= {change.new for change in found if _is_symbol(change) and change.kind == "added"}
    told = [change for change in found if not (_is_symbol(change) and {change.old, change.new} & moved)]
    symbols = any(_is_symbol(change) for change in told)
    return [change for change in told if not (change.field == "function" or (change.field == CODE and symbols))]


def _is_of_code(change: Change) -> bool:
    return _is_symbol(change) or change.field in (CODE, "function")


def _is_symbol(change: Change) -> bool:
    return change.field.startswith(SOURCE)


def code_counted(fields: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the fields other than code, and those of code in one phrase, if there are any: "code (3 definitions)"."""
    others = [field for field in fields if not field.startswith(SOURCE)]
    code = len(fields) - len(others)
    return others, [f"code ({code} definitions)"] if code else []


def summarise(changes: Sequence[Change]) -> str:
    """Return the changes in a few words: what became of each field, or how many fields of which part."""
    if len(changes) <= NAMED and not any(change.field.startswith(SOURCE) for change in changes):
        return ", ".join(_in_short(change) for change in changes)
    groups = groupby(sorted(changes, key=_part), key=_part)
    counted = [(part, sum(1 for _ in members)) for part, members in groups]
    return ", ".join(part if count == 1 else f"{part} ({count} changes)" for part, count in counted)


def describe(changes: Sequence[Change]) -> list[str]:
    """Return lines that tell each change: both values if they are short, else a diff."""
    told = [change for change in changes if not change.field.startswith(SOURCE)]
    lines = [line for change in told[:MOST_CHANGES] for line in _told(change)]
    if len(told) > MOST_CHANGES:
        lines.append(f"and {len(told) - MOST_CHANGES} more: {summarise(told[MOST_CHANGES:])}")
    for kind in ("changed", "added", "removed"):
        symbols = [
            change.field.removeprefix(SOURCE) for change in changes if change not in told and change.kind == kind
        ]
        if symbols:
            note = " (what it was is not stored)" if kind == "changed" else ""
            lines.append(f"source {kind}{note}: {', '.join(symbols)}")
    return lines


def _by_name(old: Mapping[str, Any], new: Mapping[str, Any], field: str) -> Iterator[Change]:
    for name in sorted(old.keys() | new.keys()):
        path = f"{field}.{name}" if field else name
        if name not in new:
            yield Change(field=path, kind="removed", old=old[name])
        elif name not in old:
            yield Change(field=path, kind="added", new=new[name])
        else:
            yield from compare(old[name], new[name], path)


def _in_order(old: Sequence[Any], new: Sequence[Any], field: str) -> Iterator[Change]:
    before, after = ([json.dumps(item, sort_keys=True) for item in items] for items in (old, new))
    matcher = difflib.SequenceMatcher(a=before, b=after, autojunk=False)
    for _, i, i_end, j, j_end in matcher.get_opcodes():
        paired = min(i_end - i, j_end - j)
        for step in range(paired):
            yield from compare(old[i + step], new[j + step], f"{field}[{j + step}]")
        for position in range(i + paired, i_end):
            yield Change(field=f"{field}[{position}]", kind="removed", old=old[position])
        for position in range(j + paired, j_end):
            yield Change(field=f"{field}[{position}]", kind="added", new=new[position])


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _part(change: Change) -> str:
    """Return the setting that a field belongs to: its first two names, and of code only that it is code."""
    if change.upstream:
        return f"rows of {change.upstream}"
    names = [name.partition("[")[0] for name in change.field.split(".")]
    return "source" if change.field.startswith(SOURCE) else ".".join(names[:2])


def _in_short(change: Change) -> str:
    if change.upstream:
        return f"rows of {change.upstream}"
    old, new = _text(change.old), _text(change.new)
    if change.kind == "changed" and len(old) + len(new) <= SHORT and "\n" not in old + new:
        return f"{change.field} {old} -> {new}"
    return change.field if change.kind == "changed" else f"{change.field} {change.kind}"


def _told(change: Change) -> list[str]:
    if change.upstream:
        verb = {"changed": "has other rows than before", "added": "was not read before", "removed": "was read before"}
        return [f"{change.field}: {change.upstream} {verb[change.kind]}"]
    old, new = _text(change.old), _text(change.new)
    short = max(len(old), len(new)) <= SHORT and "\n" not in old + new
    if change.kind != "changed":
        value = new if change.kind == "added" else old
        return [f"{change.field}: {change.kind}{f', {value}' if short else ''}"]
    return [f"{change.field}: {old} -> {new}"] if short else [f"{change.field}:", *_diff(old, new)]


def _diff(old: str, new: str) -> list[str]:
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), n=1, lineterm=""))[2:]
    more = [f"... {len(lines) - MOST_LINES} more lines"] if len(lines) > MOST_LINES else []
    return [f"  {line}" for line in (*lines[:MOST_LINES], *more)]


def _text(value: Any) -> str:
    """Return a value as text: strings of several lines as they are, all else as JSON."""
    if isinstance(value, str) and ("\n" in value or len(value) > SHORT):
        return value
    line = json.dumps(value, ensure_ascii=False)
    return line if len(line) <= SHORT else json.dumps(value, ensure_ascii=False, indent=1)
