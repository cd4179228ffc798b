"""A number out of a Polars result, whose declared type is any scalar."""

from __future__ import annotations


def number(value: object) -> float:
    assert isinstance(value, int | float)
    return value
