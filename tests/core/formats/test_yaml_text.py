"""YAML texts have the value that PyYAML's own parser gives them, and errors show the line."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from normloom.core.formats.yaml_text import load_yaml

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(values, st.booleans())
def test_values_are_those_of_pyyaml(value: Any, flow: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    assert load_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize("text", ["", "0.4", "1_000", "yes", "s3://bucket/x?y=1", "{a: [1, b], c: null}", "2020-01-01"])
def test_so_are_values_of_settings(text: str) -> None:
    assert load_yaml(text) == yaml.safe_load(text)


def test_an_error_shows_the_line() -> None:
    with pytest.raises(yaml.YAMLError, match=r"line 2, column 4:\n +b: \{c\n"):
        load_yaml("a: 1\nb: {c\n")


def test_nothing_is_made_but_plain_values() -> None:
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        load_yaml("!!python/object/apply:os.getcwd []")
