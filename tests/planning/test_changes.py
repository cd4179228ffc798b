from __future__ import annotations

from typing import Any

from normloom.planning.changes import Change, compare, compare_keys, describe, summarise

FIELDS: dict[str, Any] = {
    "arguments": {"delta": 0.5, "template": {"context": "Read this.\nThen answer."}, "labels": ["a", "b", "c"]},
    "model": {"model": "small", "revision": ""},
    "source": {"normloom.tasks.rejection.judge:judge": "1", "normloom.tasks.rejection.judge:helper": "2"},
}


def changed(**parts: object) -> list[Change]:
    return compare(FIELDS, {**FIELDS, **parts})


def test_equal_fields_have_no_changes() -> None:
    assert compare(FIELDS, {name: FIELDS[name] for name in reversed(FIELDS)}) == []


def test_a_change_is_named_by_its_path_with_both_values() -> None:
    arguments = {**FIELDS["arguments"], "delta": 0.6}
    assert changed(arguments=arguments) == [Change(field="arguments.delta", old=0.5, new=0.6)]
    assert describe(changed(arguments=arguments)) == ["arguments.delta: 0.5 -> 0.6"]
    assert summarise(changed(arguments=arguments)) == "arguments.delta 0.5 -> 0.6"


def test_fields_that_come_and_go() -> None:
    found = changed(model={"model": "small", "weights": "w1"})
    assert found == [
        Change(field="model.revision", kind="removed", old=""),
        Change(field="model.weights", kind="added", new="w1"),
    ]
    assert describe(found) == ['model.revision: removed, ""', 'model.weights: added, "w1"']
    assert describe(changed(model=None)) == ['model: {"model": "small", "revision": ""} -> null']


def test_lists_are_told_after_lining_up_what_is_equal() -> None:
    def labels(*names: str) -> list[Change]:
        return changed(arguments={**FIELDS["arguments"], "labels": list(names)})

    assert labels("b", "c") == [Change(field="arguments.labels[0]", kind="removed", old="a")]
    assert labels("a", "x", "c", "d") == [
        Change(field="arguments.labels[1]", old="b", new="x"),
        Change(field="arguments.labels[3]", kind="added", new="d"),
    ]
    records = compare([{"id": "a", "text": "one"}], [{"id": "a", "text": "two"}], "labels")
    assert records == [Change(field="labels[0].text", old="one", new="two")]


def test_a_long_text_is_told_as_a_diff_of_its_lines() -> None:
    template = {"context": "Read this.\nThen answer well."}
    found = changed(arguments={**FIELDS["arguments"], "template": template})
    assert describe(found) == [
        "arguments.template.context:",
        "  @@ -1,2 +1,2 @@",
        "   Read this.",
        "  -Then answer.",
        "  +Then answer well.",
    ]
    assert summarise(found) == "arguments.template.context"
    long = compare({"text": "\n".join("abcdefghijklmnopqrstuvwxyz")}, {"text": "none"})
    assert describe(long)[-1] == "  ... 4 more lines"


def test_code_is_told_by_symbol_as_what_it_was_is_not_stored() -> None:
    found = changed(source={"normloom.tasks.rejection.judge:judge": "9", "normloom.tasks.rejection.judge:other": "3"})
    assert describe(found) == [
        "source changed (what it was is not stored): normloom.tasks.rejection.judge:judge",
        "source added: normloom.tasks.rejection.judge:other",
        "source removed: normloom.tasks.rejection.judge:helper",
    ]
    assert summarise(found) == "source (3 changes)"


def test_what_is_read_is_told_by_stage() -> None:
    found = [Change(field="inputs[0]", old="c1", new="c2", upstream="classify")]
    assert describe(found) == ["inputs[0]: classify has other rows than before"]
    assert summarise(found) == "rows of classify"


def test_many_changes_are_counted_by_setting() -> None:
    found = compare(
        {"arguments": {"labels": list("abcdefghijklmn")}}, {"arguments": {"labels": list("ABCDEFGHIJKLMN")}}
    )
    assert summarise(found) == "arguments.labels (14 changes)"
    assert describe(found)[0] == 'arguments.labels[0]: "a" -> "A"'
    assert describe(found)[12:] == ['and 2 more: arguments.labels[12] "m" -> "M", arguments.labels[13] "n" -> "N"']


def test_code_that_moved_is_no_change_and_names_count_only_with_code() -> None:
    old = {"code": "1", "function": "a:judge", "source": {"a:judge": "x", "a:helper": "y"}, "format": 2}
    moved = {**old, "function": "b:judge", "source": {"b:judge": "x", "b:helper": "y"}}
    assert compare_keys(old, moved) == []
    edited = {**moved, "code": "2", "source": {"b:judge": "x", "b:helper": "z"}}
    assert [(change.field, change.kind) for change in compare_keys(old, edited)] == [
        ("source.a:helper", "removed"),
        ("source.b:helper", "added"),
    ]
    swapped = {**old, "code": "3"}  # the same symbols in another order
    assert compare_keys(old, swapped) == [Change(field="code", old="1", new="3")]
    later = {**edited, "format": 3, "delta": 1}
    assert compare_keys({**old, "delta": 0}, later) == [
        Change(field="delta", old=0, new=1),
        Change(field="format", old=2, new=3),
    ]


def test_several_stages_that_are_read_are_counted() -> None:
    found = [Change(field=f"inputs[{place}]", old="1", new="2", upstream=f"s{place}") for place in range(5)]
    assert summarise(found).startswith("rows of s0")
