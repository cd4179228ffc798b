"""Nine invented people, four of them labelled, and builds of PersoPilot's loop over them.

The relation is a stop word: two people are alike if they have the same things, and for no other reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from normloom.core.table import Manifest
from normloom.labelling.queue import LabelQueue, open_queue
from normloom.schemas.people.analyst_tables import DECISIONS, REPLIES
from normloom.settings.settings import stages_for
from normloom.store.store import Store
from normloom.testing import made

HAVE = {
    "ann": ["tents", "lakes"],
    "bob": ["fires", "hills"],
    "cat": ["sofas", "films"],
    "dan": ["yarn", "chess"],
    "eve": ["tents", "fires"],  # of the accepted side alone: sure
    "fay": ["films", "chess"],
    "gus": ["tents", "films", "sofas"],  # of both
    "hal": ["lakes", "yarn", "hills"],
    "ivy": ["soup"],  # of neither
}
LABELLED = {"ann": "would come", "bob": "would come", "cat": "would stay", "dan": "would stay"}
ASSISTANT = '{engine: scripted, model: a, options: {frame: \'{"score": 0.9, "reason": "%s", "facts": [1]}\', words: 6}}'


def people(folder: Path, **more: list[str]) -> Path:
    """Write what is known of everybody, with `more` that they have, and the labels; return the folder."""
    folder.mkdir(exist_ok=True)
    have = {name: [*told, *more.get(name, [])] for name, told in HAVE.items()}
    facts = [f"{name},Leisure,All,has,{what}\n" for name, told in have.items() for what in told]
    (folder / "facts.csv").write_text("username,task,topic,relation,object\n" + "".join(facts))
    labels = [f"Camping,{name},{label}\n" for name, label in LABELLED.items()]
    (folder / "classification_labels.csv").write_text("classification_task,username,label\n" + "".join(labels))
    return folder


def loop(store: Store, folder: Path, *assignments: str, assistant: str = ASSISTANT) -> dict[str, Manifest]:
    given = [f"source.path={folder}", f"models={{assistant: {assistant}}}", "loop.start=1", *assignments]
    return made("persopilot", stages_for("persopilot", profile="local", assignments=given, store=store).ends, store)


def rows(store: Store, tables: Mapping[str, Manifest], stage: str) -> pl.DataFrame:
    return store.scan(tables[stage].ref).collect()


def answer(queue: LabelQueue, question: str, said: Mapping[str, str], who: str = "ada") -> None:
    """Answer about users, by name."""
    for row in queue.listed(who):
        if row.shown["username"] in said:
            queue.record(row, {question: said[row.shown["username"]]}, who)


def decide(store: Store, who: str = "ada", **said: str) -> None:
    answer(open_queue(store, DECISIONS), "side", said, who)


def reply(store: Store, **said: str) -> None:
    answer(open_queue(store, REPLIES), "reply", said)
