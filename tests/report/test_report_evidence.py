"""The report's explanations: marks where the mentions are, pictures blurred, and no text of a row as HTML."""

from __future__ import annotations

import re
from typing import Any

import pytest
from in_process import prepared

from normloom.report.material import find_material
from normloom.report.page import page
from normloom.report.report import report
from normloom.report.sections.data.evidence import pieces
from normloom.store.store import Store
from normloom.testing.builds import build_id, built

NASTY = "<img src=x onerror=alert(1)> vermin & 88 “frogs”"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("evidence")
    told = {
        "train": ("Rats and other vermin live here", "My cat sleeps", "Go back home, foreigners", "The bus is late"),
        "test": (NASTY, "a cat and a frog", "filthy invaders", "coffee on monday"),
    }
    rows = [
        f'{split}{n},{split},{"bad" if n % 2 == 0 else "good"},"{text}"'
        for split, texts in told.items()
        for n, text in enumerate(texts)
    ]
    (place / "memes.csv").write_text("\n".join(["id,split,label,text", *rows]))
    store = Store(place / "store")
    ends = prepared("cross_align", store, f"source.path={place / 'memes.csv'}").ends
    built(store, *ends, build=build_id(1))
    return report(find_material(store, "toy"))


def test_an_explanation_shows_mentions_facts_and_the_verdict_without_them(found: dict[str, Any]) -> None:
    [section] = [one["data"] for one in found["sections"] if one["name"] == "evidence"]
    assert section["claims"] == ["memes: nothing can be said of knowledge (fewer than 5 memes)"]
    one = next(one for one in section["explanations"] if one["meme"] == "test0")
    assert "".join(text for text, _ in one["pieces"]) == NASTY
    assert {"vermin", "88", "frogs"} <= {text for text, name in one["pieces"] if name}
    assert {fact["id"] for fact in one["facts"]} >= {cited for cited in one["cited"] if cited.startswith("f")}
    assert one["drop_cited"] is not None


def test_the_words_of_a_meme_are_never_html(found: dict[str, Any]) -> None:
    html = page(found)
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    marked = re.findall(r"<mark(?: class=\"strong\")?>([^<]*)<sup>(m\d+(?:, m\d+)*)</sup></mark>", html)
    assert "vermin" in {text for text, _ in marked}
    assert "without what is cited" in html


def test_spans_cut_a_text_and_equal_ones_are_one() -> None:
    assert pieces("ab cd ef", [(3, 5, "m1"), (3, 5, "m2"), (6, 8, "m3")]) == [
        ("ab ", None),
        ("cd", "m1, m2"),
        (" ", None),
        ("ef", "m3"),
    ]
