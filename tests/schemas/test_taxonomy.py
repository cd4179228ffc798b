import os
from pathlib import Path

import pytest

from normloom.core.errors import ConfigError
from normloom.schemas.taxonomy import BUILTIN, DIMENSIONS, Taxonomy, builtin_taxonomies, load_taxonomies, load_taxonomy

HEADER = "id,name,group,definition\n"
TWO = "colour/red,Red,Warm,The colour of ripe cherries.\ncolour/blue,Blue,Cold,The colour of a clear sky.\n"


def load(tmp_path: Path, text: str) -> Taxonomy:
    path = tmp_path / "colour.csv"
    path.write_text(text, encoding="utf-8")
    return load_taxonomy(path)


def test_builtin_taxonomies_have_the_published_sizes() -> None:
    assert [(t.dimension, len(t.labels)) for t in builtin_taxonomies()] == [
        ("safety", 14),
        ("value", 56),
        ("cultural", 41),
    ]


def test_builtin_ids_are_unique_over_all_dimensions_and_definitions_are_one_line() -> None:
    labels = [label for taxonomy in builtin_taxonomies() for label in taxonomy.labels]
    assert len({label.id for label in labels}) == len(labels)
    assert len({label.definition for label in labels}) == len(labels)
    assert all("\n" not in label.definition and len(label.definition.split()) >= 6 for label in labels)
    assert all(label.id == label.id.lower() and " " not in label.id for label in labels)


def test_value_and_cultural_groups_are_those_of_schwartz_and_unesco() -> None:
    _, value, cultural = builtin_taxonomies()
    assert len({label.group for label in value.labels}) == 10
    assert value.label("Wealth").group == "Power"
    assert cultural.label("Opera").group == "Performance and Celebration"


def test_labels_keep_the_order_of_their_file(tmp_path: Path) -> None:
    taxonomy = load(tmp_path, HEADER + TWO)
    assert taxonomy.dimension == "colour"
    assert [label.name for label in taxonomy.labels] == ["Red", "Blue"]


def test_a_label_is_found_by_id_and_by_name(tmp_path: Path) -> None:
    taxonomy = load(tmp_path, HEADER + TWO)
    assert taxonomy.label("Red") is taxonomy.label("colour/red") is taxonomy.labels[0]


def test_an_unknown_label_suggests_close_ones() -> None:
    safety = builtin_taxonomies()[0]
    with pytest.raises(
        ConfigError, match=r"not an id or name of the 14 safety labels; did you mean 'Privacy violation'"
    ):
        safety.label("Privacy violations")
    with pytest.raises(ConfigError, match="use a label such as 'safety/animal_abuse'"):
        safety.label("%%%%")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"colour\.csv, line 1: expected the columns id,name,group,definition, found nothing"),
        ("id,name\n", r"line 1: expected the columns .*, found id,name;"),
        (HEADER, "at least 2 labels, found 0"),
        (HEADER + TWO + "colour/green,Green,,Leaves.\n", "line 4, column group: expected text, found none"),
        (HEADER + TWO + "colour/green,Green\n", r"line 4: expected 4 cells .* found 2"),
        (HEADER + TWO + "color/green,Green,Cold,Leaves.\n", "line 4, column id: expected 'colour/' and a slug"),
        (HEADER + TWO + "colour/,Green,Cold,Leaves.\n", "line 4, column id: expected 'colour/' and a slug"),
        (HEADER + TWO + "colour/red,Green,Cold,Leaves.\n", "line 4, column id: 'colour/red' is already in line 2"),
        (HEADER + TWO + "colour/green,Blue,Cold,Leaves.\n", "line 4, column name: 'Blue' is already in line 3"),
        (HEADER + TWO + 'colour/green,"Green,Cold,Leaves.\n', "line 4: .*check the double quotes"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_a_missing_file_and_other_encodings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"colour\.csv: expected a CSV file .* No such file"):
        load_taxonomy(tmp_path / "colour.csv")
    (tmp_path / "colour.csv").write_bytes(HEADER.encode() + b"colour/red,R\xe9d,Warm,Cherries.\n")
    with pytest.raises(ConfigError, match="save it as UTF-8"):
        load_taxonomy(tmp_path / "colour.csv")


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    assert load_taxonomies(BUILTIN, DIMENSIONS) == builtin_taxonomies()
    path = tmp_path / "safety.csv"
    path.write_text((BUILTIN / "safety.csv").read_text())
    [before] = load_taxonomies(tmp_path, ["safety"])
    path.write_text(path.read_text().replace(before.labels[0].name, "Another name"))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    [after] = load_taxonomies(tmp_path, ["safety"])
    assert (after.labels[0].name, after.labels[1:]) == ("Another name", before.labels[1:])
