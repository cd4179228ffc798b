"""Files next to the source of a system: what is wrong with them is said before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from command_line import Command

REPLIES = {"gen_id": ["a"], "prompt_id": ["p"], "model": ["m"], "raw_reply": ["{}"]}
SIGNALS = {"coherence": [0.5], "consistency": [1], "utterance_entailment": [1], "persona_distance": [0.1]}
PROMPTS = {"prompt_id": ["p"], "persona": ["I row."], "context": ["Hi."]}
MEMES = {"meme_id": ["m"], "text_en": ["hi"], "label_us": [0], "label_gb": [1]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tables: dict[str, Mapping[str, Any]] = {
        "replies": REPLIES | SIGNALS,
        "unmeasured": REPLIES,
        "prompts": PROMPTS,
        "memes": MEMES,
        "answers": {"meme_id": ["m"], "prompt_no": [0], "reply": ["a"]},
        "facts": {key: ["x"] for key in ("username", "task", "topic", "relation", "object")},
    }
    for name, columns in tables.items():
        pl.DataFrame(columns).write_csv(tmp_path / f"{name}.csv")
    return tmp_path


COUNTRIES = "countries={us: en, gb: en}"
REFUSED = [
    ("persodpo", "prompts.csv", [], "prompts.csv has no column 'gen_id' and no column 'model'"),
    ("persodpo", "unmeasured.csv", [], "unmeasured.csv has no column 'coherence'"),
    ("persodpo", "replies.csv", ["source.validation=replies.csv"], "replies.csv has no column 'policy'"),
    ("persodpo", "replies.csv.gz", [], "source.prompts: name the prompts that the replies answer (prompts.csv.gz does"),
    (
        "cross_cultural",
        "memes.csv",
        [COUNTRIES, "source.replies=answers.csv", "source.ratings=memes.csv"],
        "memes.csv has no column 'rater_id'",
    ),
    ("cross_cultural", "memes.csv", [COUNTRIES, "source.replies=memes.csv"], "memes.csv has no column 'prompt_no'"),
    ("persopilot", ".", ["source.labels=prompts.csv"], "prompts.csv has no column 'classification_task'"),
]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("system", "source", "settings", "words"), REFUSED)
def test_a_file_without_its_columns_is_refused_by_plan(
    command: Command, system: str, source: str, settings: list[str], words: str
) -> None:
    given = [part for one in settings for part in ("--set", one)]
    ran = command("plan", system, "--profile", "replay", "--source", source, *given)
    assert ran.code == 2
    assert ran.sentence.startswith(words)


@pytest.mark.parametrize("name", ["classification_labels.tsv", "classification_labels.jsonl.gz"])
def test_a_folder_of_persopilot_may_have_any_format(command: Command, folder: Path, name: str) -> None:
    labels = pl.DataFrame({key: ["x"] for key in ("classification_task", "username", "label")})
    if name.endswith("tsv"):
        labels.write_csv(folder / name, separator="\t")
    else:
        labels.write_ndjson(folder / name, compression="gzip")
    given = ("plan", "persopilot", "--source", str(folder), "--store", str(folder / "store"))
    assert "\nlabels " in command(*given).out
    labels.write_csv(folder / "classification_labels.csv")
    listed = f"classification_labels.csv, {name} are several files of classification_labels: leave one"
    assert command(*given).sentence == f"source.path {folder}: {listed}"
