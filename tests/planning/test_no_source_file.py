"""Modules without a source file."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from normloom.planning.canonical import canonical
from normloom.planning.code.called import Called
from normloom.planning.code.source_modules import changed_at, file_of


def test_a_module_without_a_specification_has_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "made_by_hand", types.ModuleType("made_by_hand"))
    assert file_of("made_by_hand") is None
    assert changed_at(tmp_path / "gone") == (0, 0)


def test_a_class_without_a_file_counts_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("made_by_hand")
    shape = type("Shape", (), {"__module__": "made_by_hand"})
    vars(module)["Shape"] = shape
    monkeypatch.setitem(sys.modules, "made_by_hand", module)
    called = Called(canonical)
    called.add(shape)
    assert called.roots == [("made_by_hand", "Shape")]
    assert list(called.live) == ["made_by_hand"]
