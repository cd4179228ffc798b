"""What the settings of a system say of a build before it begins, and what they refuse."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from in_process import prepared

from normloom.core.errors import ConfigError
from normloom.store.store import Store


def test_whether_models_see_pictures_is_said(tmp_path: Path) -> None:
    store = Store(tmp_path)
    [note] = prepared("cross_cultural", store).config.notes
    assert note == "models are asked about the texts of memes, not shown their pictures; ask.look=true shows them"
    seen = "{engine: scripted, model: c, options: {images: true}}"
    seeing = f"models={{encoder: {{engine: scripted, model: e}}, entrants: {{m: {seen}}}}}"
    assert prepared("cross_cultural", store, seeing, "ask.look=true").config.notes == []


def test_a_policy_needs_what_trains_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = "models.policy={engine: transformers, model: SmolLM2-135M-Instruct}"
    monkeypatch.setitem(sys.modules, "trl", None)  # Python's own word for what cannot be imported
    with pytest.raises(ConfigError, match=r"models\.policy is trained with trl, not installed here: pip install "):
        prepared("persodpo", Store(tmp_path), policy)


def test_what_few_prompts_leave_out_is_said(tmp_path: Path) -> None:
    assert prepared("demo_safetybench", Store(tmp_path)).config.notes == []
    [note] = prepared("demo_safetybench", Store(tmp_path), "source.limit=2").config.notes
    assert note.startswith("Sparse labels are not expanded, since --limit takes a few prompts")
