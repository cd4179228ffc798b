from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normloom.core.errors import ConfigError
from normloom.schemas.taxonomy import DIMENSIONS
from normloom.schemas.template import FOLDER, Template, load_template, templates_of
from normloom.tasks.cross_align.reword import Rewording
from normloom.tasks.rejection.judge import ON_TASK

NEEDED = {
    "classify": {"instruction": set(), "context": {"prompt"}, "question": {"dimension", "label", "definition"}},
    "rank": {"instruction": {"dimension", "codes"}, "context": {"prompt"}, "question": {"dimension"}},
    "reword": {"instruction": set(), "prompt": {"sentence"}},
    "expand": {"instruction": set(), "prompt": {"label", "definition", "examples"}},
    "generate": {"instruction": set(), "prompt": {"prompt"}, "resample": {"prompt", "diagnosis"}},
    "judge": {
        "instruction": set(),
        "context": {"prompt", "response"},
        **{f"question {name}": set() for name in (*DIMENSIONS, ON_TASK)},
    },
    "diagnose": {"instruction": {"wanted"}, "prompt": {"prompt", "response", "finding"}},
    "semantic_type": {"instruction": {"codes"}, "context": {"prompt"}, "question": set()},
    "expand_group": {"instruction": set(), "prompt": {"label", "definition", "examples", "person"}},
    "rate": {"instruction": set(), "context": {"prompt"}, "question": {"person", "no", "unsure", "yes"}},
    "detect": {
        "instruction": set(),
        "context": {"prompt", "response"},
        **{f"question {name}": set() for name in ("misaligned", *DIMENSIONS)},
        "written instruction": set(),
        "written prompt": {"prompt", "response"},
    },
    "respond": {"instruction": set(), "prompt": {"prompt"}},
    "assist": {"instruction": set(), "prompt": {"task", "facts"}},
    "compare": {"instruction": set(), "context": {"prompt"}, "question": {"first", "second"}},
    "inject": {"principle": {"axis"}, "prompt": {"principle", "prompt"}},
    "chat": {"instruction": set(), "prompt": {"facts", "suggestions", "said"}},
    "persona": {"instruction": set(), "prompt": {"persona", "context"}},
    "entail": {"instruction": set(), "context": {"reply"}, "question": {"statement"}},
    "cultural": {
        f"{section} {language}": placeholders
        for language in ("en", "de", "es", "hi", "zh")
        for section, placeholders in (
            ("instruction", set()),
            ("meme", {"image", "text"}),
            ("example", {"image", "text", "question", "answer"}),
            ("question", {"first", "second"}),
            ("hateful", set()),
            ("harmless", set()),
        )
    },
}


def written(folder: Path, text: str | bytes) -> Path:
    (folder / "t.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_sections_are_read_without_the_blank_lines_around_them(tmp_path: Path) -> None:
    template = load_template("t", written(tmp_path, "\n[one]\nfirst\n\n second\n\n[part two]\n$x\n"))
    assert template == Template(name="t", sections={"one": "first\n\n second", "part two": "$x"})
    assert template.render("part two", x="1", unused="2") == "1"


def test_what_only_looks_like_a_heading_is_text(tmp_path: Path) -> None:
    template = load_template("t", written(tmp_path, "[one]\na [two] b\n[Three]\n [four]\n[]\n"))
    assert template.sections == {"one": "a [two] b\n[Three]\n [four]\n[]"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"expected a line such as \[instruction\] before any text"),
        ("no heading", r"expected a line such as \[instruction\] before any text"),
        ("text\n[one]\nmore", r"expected a line such as \[instruction\] before any text"),
        ("[one]\na\n[two]\nb\n[one]\nc", r"section \[one\] occurs twice"),
        (b"[one]\ncaf\xe9", "is not UTF-8 .* at byte 9"),
    ],
)
def test_a_file_that_is_no_template_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_template("t", written(tmp_path, text))


def test_a_template_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    written(tmp_path, "[one]\na")
    with pytest.raises(ConfigError, match=r"unknown template .*/u\.txt; available in .*: t"):
        load_template("u", tmp_path)
    with pytest.raises(ConfigError, match=r"unknown template .*; available in .*/nowhere: none"):
        load_template("t", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="cannot be read: Not a directory"):
        load_template("u", tmp_path / "t.txt")


def test_rendering_refuses_what_cannot_be_filled() -> None:
    template = Template(name="t", sections={"one": "$x and $y", "price": "it costs $", "bare": "$x"})
    with pytest.raises(ConfigError, match=r"'t', section \[one\]: unknown placeholder \$y; available: \$x, \$z"):
        template.render("one", z="", x="")
    with pytest.raises(ConfigError, match=r"section \[bare\]: unknown placeholder \$x; available: none"):
        template.render("bare")
    with pytest.raises(ConfigError, match=r"section \[price\]: a \$ without a name; write \$\$"):
        template.render("price")
    with pytest.raises(ConfigError, match=r"'t' has no section \[two\]; it has \['bare', 'one', 'price'\]"):
        template.render("two")


@given(st.text(), st.text())
def test_values_are_never_read_as_placeholders(prompt: str, response: str) -> None:
    template = Template(name="t", sections={"one": "<$prompt|$response|$$>"})
    assert template.render("one", prompt=prompt, response=response) == f"<{prompt}|{response}|$>"


@pytest.mark.parametrize("name", NEEDED)
def test_builtin_templates_have_the_sections_and_placeholders_that_stages_fill(name: str) -> None:
    template = load_template(name)
    assert set(template.sections) == set(NEEDED[name])
    for section, values in NEEDED[name].items():
        rendered = template.render(section, **{value: f"<{value}>" for value in values})
        assert all(f"<{value}>" in rendered for value in values)


def test_every_builtin_template_is_known_here() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(NEEDED)


def test_a_section_that_is_needed_is_asked_for_when_the_template_is_read(tmp_path: Path) -> None:
    (tmp_path / "judge.txt").write_text("[instruction]\nJudge.\n")
    with pytest.raises(ConfigError, match=r"judge\.txt: it has no section \[context\]; its sections are"):
        load_template("judge", tmp_path, needs=("instruction", "context"))


def test_templates_that_a_folder_does_not_have_are_the_built_in_ones(tmp_path: Path) -> None:
    (tmp_path / "judge.txt").write_text((FOLDER / "judge.txt").read_text())
    with templates_of(tmp_path):
        assert Rewording.model_validate({"template": "reword"}).template == load_template("reword")
