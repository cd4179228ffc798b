from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import polars as pl
import pytest
import typer
from rich.console import Console
from scripted_profile import SETTINGS
from typer.testing import CliRunner

from normloom.cli.commands.reading.trace import trace
from normloom.cli.output.trace_tree import trained, tree_of
from normloom.core.errors import UsageError
from normloom.core.progress import LogProgress
from normloom.core.table import Kind, Manifest
from normloom.flows.savacu.config import SavacuConfig
from normloom.flows.savacu.flow import savacu
from normloom.lineage.trace import LedgerEntry, Row, Sibling, Trace
from normloom.lineage.trained import Trained
from normloom.run.runner import StageRunner
from normloom.settings.config import load_profile, override, validated
from normloom.steps.graph import model_uses, stages_of
from normloom.store.store import Store
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources


@dataclass(frozen=True)
class Built:
    store: Store

    def rows(self, stage: str, kind: Kind = "rows") -> pl.DataFrame:
        manifest = self.store.current("savacu", stage)
        assert manifest is not None
        return self.store.scan(manifest.ref, kind).collect()

    def traced(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.told(*arguments, "--json"))
        return found

    def told(self, *arguments: str) -> str:
        app = typer.Typer()
        app.command()(trace)
        result = CliRunner().invoke(app, [*arguments, "--store", str(self.store.root)], catch_exceptions=False)
        assert result.exit_code == 0
        return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A whole build of twelve built-in prompts by scripted models, in this process."""
    store = Store(tmp_path_factory.mktemp("store"))
    config, _ = validated(SavacuConfig, override(load_profile("local", "savacu"), list(SETTINGS)))
    stages = stages_of(*savacu(config))
    pool = Pool(Resources(actors=0), model_uses(stages))
    loom = StageRunner(system="savacu", store=store, pool=pool, build="test", progress=LogProgress())
    made: dict[str, Manifest] = {}
    for stage in stages:
        inputs, sides = ([made[each.name].ref for each in group] for group in (stage.inputs, stage.sides))
        made[stage.name], _ = loom.run(stage, inputs, sides)
    return Built(store)


def released_of(built: Built, round: int) -> str:
    """Return a released row for a prompt of the source whose response was drawn in a round."""
    selected = built.rows("select").filter(round=round)["row_id"].to_list()
    split = built.rows("split").filter(pl.col("parents").list.first().is_in(selected))["row_id"].to_list()
    released = built.rows("publish").filter(pl.col("parents").list.first().is_in(split), origin="source")
    return str(released["row_id"][0])


@pytest.mark.parametrize("round", [0, 1])
def test_a_released_row_leads_to_its_prompt_its_label_votes_and_its_judge_s_scores(built: Built, round: int) -> None:
    released = released_of(built, round)
    found = built.traced(released)
    rows = {row["stage"]: row["values"] for row in found["rows"]}
    assert next(iter(rows)) == "publish"
    assert rows["ingest"]["prompt"] == rows["publish"]["prompt"]
    assert {label["label"] for label in rows["classify"]["labels"]} == {
        label["label"] for name in ("safety", "value", "cultural") for label in rows["publish"][name]
    }
    assert all(0 <= label["probability"] <= 1 for label in rows["classify"]["labels"])
    judged = rows[f"judge_{round}"]
    assert {check["check"] for check in judged["checks"]} == {"safety", "value", "cultural", "on_task"}
    assert (judged["verdict"], judged["response"]) == (rows["publish"]["alignment"], rows["publish"]["response"])
    assert ("diagnose_1" in rows) == (round == 1)


@pytest.mark.parametrize("round", [0, 1])
def test_forward_from_the_prompt_leads_to_the_released_row(built: Built, round: int) -> None:
    released = released_of(built, round)
    [prompt] = [row["row_id"] for row in built.traced(released)["rows"] if row["stage"] == "ingest"]
    found = built.traced(prompt, "--forward")
    assert released in {row["row_id"] for row in found["rows"] if row["stage"] == "publish"}
    ours = built.rows("publish").filter(prompt=found["rows"][0]["values"]["prompt"])["row_id"]
    assert set(ours) <= {row["row_id"] for row in found["rows"]}


def test_the_rejected_candidates_of_a_prompt_stand_beside_the_chosen_one(built: Built) -> None:
    released = released_of(built, 0)
    found = built.traced(released)
    [chosen] = [row for row in found["rows"] if row["stage"].startswith("generate_0")]
    drawn = built.rows(chosen["stage"]).filter(prompt_id=chosen["values"]["prompt_id"])
    others = {row["row_id"]: row for row in found["siblings"] if row["stage"] == chosen["stage"]}
    assert {chosen["row_id"], *others} == set(drawn["row_id"])
    selected = built.rows("select", "dropped")
    for other in others.values():
        [scored] = built.rows("score_0").filter(candidate_id=other["row_id"])["row_id"]
        [judged] = built.rows("judge_0").filter(pl.col("parents").list.contains(scored))["row_id"]
        lost = selected.filter(row_id=judged)
        assert [entry["reason"] for entry in other["ledger"]] == lost["reason"].to_list()
        assert (other["reached"] == ["publish"]) == lost.is_empty()
    assert any(other["ledger"] for row in built.rows("publish")["row_id"] for other in built.traced(row)["siblings"])


def test_a_dropped_candidate_names_its_winner(built: Built) -> None:
    lost = built.rows("select", "dropped").filter(reason="narrower_margin").row(0, named=True)
    found = built.traced(lost["row_id"][:12])
    assert found["row_id"] == lost["row_id"]
    [entry] = [entry for entry in found["ledger"] if entry["row_id"] == lost["row_id"]]
    assert (entry["stage"], entry["kind"], entry["winner"]) == ("select", "dropped", lost["winner"])
    assert f"dropped by select, narrower_margin, in favour of {lost['winner'][:8]}" in built.told(lost["row_id"])


def test_the_text_reads_from_the_released_row_to_the_prompt(built: Built) -> None:
    released = released_of(built, 0)
    lines = built.told(released).splitlines()
    assert lines[0].startswith(f"publish  {released[:8]}  ")
    way = ("split", "select", "judge_0", "score_0", "deduplicate", "classify", "score_labels", "ingest")
    order = [next(number for number, line in enumerate(lines) if f" {stage}  " in line) for stage in way]
    assert order == sorted(order)
    text = " ".join(lines)
    assert "checks safety 0." in text
    assert "alignment=" in lines[0]
    assert "ancestors: 1 split, 1 select, 1 judge_0, 1 score_0" in text
    forward = built.told(built.traced(released)["rows"][-1]["row_id"], "--forward")
    assert forward.startswith("ingest  ")
    assert "descendants: 1 score_labels, 1 classify" in forward


def test_an_unknown_id_is_wrong_usage(built: Built) -> None:
    with pytest.raises(UsageError, match=r"no row id begins with 'facade00'.*savacu/publish"):
        built.told("facade00", "--system", "savacu")


def drawn(found: Trace, *, width: int = 90) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(tree_of(found), highlight=False)
    return [line.rstrip() for line in capture.get().splitlines()]


def a_row(stage: str, name: str, *parents: str, **values: object) -> Row:
    return Row(stage=stage, row_id=name, parents=parents, values=values)


def a_loss(name: str, reason: str, *, winner: str | None = None, **payload: object) -> LedgerEntry:
    return LedgerEntry(
        stage="pick", kind="dropped", row_id=name, rule=None, reason=reason, winner=winner, payload=payload
    )


def a_trace(*rows: Row, **fields: Any) -> Trace:
    names = {row.row_id for row in rows}
    edges = tuple((parent, row.row_id) for row in rows for parent in row.parents if parent in names)
    some = {"forward": False, "edges": edges, "ledger": (), "siblings": (), "missing": ()}
    return Trace(system="toy", row_id=rows[0].row_id if rows else "lost", rows=rows, **{**some, **fields})


def test_a_chain_is_flat_and_each_row_shows_what_its_stage_changed() -> None:
    long = "a text that is longer than what fits into\nthe line of names and figures \x1b[31m of a row, so long"
    found = a_trace(
        a_row("last", "aaaaaaaaaaaa", "bbbbbbbbbbbb", text=long, score=0.833, ok=True, tiny=0.0001),
        a_row("middle", "bbbbbbbbbbbb", "cccccccccccc", text=long, seed=2**40, vector=[0.1, 0.2], of="f" * 32),
        a_row("first", "cccccccccccc", text=long, kind="new", nothing=None, empty=[]),
    )
    assert drawn(found) == [
        "last  aaaaaaaa  score=0.83  ok=true  tiny=1.0e-04",
        "text a text that is longer than what fits into the line of names and figures [31m of a ro…",
        "├── middle  bbbbbbbb",
        "└── first  cccccccc  kind=new",
        "    text a text that is longer than what fits into the line of names and figures [31m of …",
    ]


def test_labels_and_scores_are_told_as_name_and_figure() -> None:
    labels = [
        {"dimension": "safety", "label": "safety/theft", "probability": 0.834},
        {"dimension": "value", "label": "Wealth", "probability": None},
    ]
    found = a_trace(a_row("classify", "a" * 32, labels=labels, box={"a": 1}, tags=[str(n) for n in range(9)]))
    assert drawn(found, width=200) == [
        "classify  aaaaaaaa  labels safety/theft 0.83, value/Wealth  box=1  tags 0, 1, 2, 3, 4, 5 and 3 more"
    ]


def test_several_parents_branch_and_a_row_met_again_is_only_named() -> None:
    found = a_trace(
        a_row("top", "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc", word="x"),
        a_row("left", "bbbbbbbbbbbb", "dddddddddddd", word="y"),
        a_row("right", "cccccccccccc", "dddddddddddd", word="z"),
        a_row("root", "dddddddddddd", word="w"),
    )
    assert drawn(found) == [
        "top  aaaaaaaa  word=x",
        "├── left  bbbbbbbb  word=y",
        "│   └── root  dddddddd  word=w",
        "└── right  cccccccc  word=z",
        "    └── root  dddddddd  (above)",
    ]


def test_what_was_lost_stands_below_the_row_and_is_cut_short() -> None:
    row = a_row("draw", "aaaaaaaaaaaa", "pppppppppppp", word="x")
    lost = [a_loss(f"{number}" * 12, "worse", winner=row.row_id, word=f"w{number}") for number in range(5)]
    others = tuple(
        Sibling(
            row=a_row("draw", f"{number}" * 12, "pppppppppppp", word=f"w{number}"),
            beside=(row.row_id,),
            reached=() if number else ("end",),
            ledger=(lost[number],) if number else (),
        )
        for number in range(5)
    )
    mine = a_loss(row.row_id, "too late", winner="ffffffffffff", word="x")
    found = a_trace(row, ledger=(*lost, mine), siblings=others, missing=("p" * 12,), edges=(("p" * 12, row.row_id),))
    assert drawn(found) == [
        "draw  aaaaaaaa  word=x",
        "├── dropped by pick, too late, in favour of ffffffff",
        "├── won over 00000000  dropped by pick, worse  word=w0",
        "├── won over 11111111  dropped by pick, worse  word=w1",
        "├── won over 22222222  dropped by pick, worse  word=w2",
        "├── and 2 more",
        "├── 5 others of draw: 4 dropped by pick, worse, 1 kept to end",
        "│   ├── 00000000  kept to end  word=w0",
        "│   ├── 11111111  dropped by pick, worse  word=w1",
        "│   ├── 22222222  dropped by pick, worse  word=w2",
        "│   └── and 2 more",
        "└── pppppppp  not in the newest tables",
    ]


def test_many_children_are_cut_short() -> None:
    children = [a_row("draw", f"{number:012d}", "aaaaaaaaaaaa", word=str(number)) for number in range(1200)]
    lines = drawn(a_trace(a_row("words", "aaaaaaaaaaaa", word="x"), *children, forward=True))
    assert len(lines) == 12
    assert lines[-1] == "└── and 1,190 more"


def test_a_row_known_to_the_ledger_only_shows_its_entries() -> None:
    entry = LedgerEntry(
        stage="ingest", kind="quarantined", row_id="lost", rule="odd", reason="why", winner=None, payload="raw text"
    )
    assert drawn(a_trace(ledger=(entry,))) == [
        "lost  only in the ledger",
        "└── quarantined by ingest, odd: why",
    ]


ID = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("rows", "forward", "said"),
    [
        ((), False, "wrote draft"),
        ((ID,), False, "wrote draft; learned from 1,200 rows of pairs, such as 01234567"),
        ((ID,), True, "learned from 1 of these rows (01234567), of 1,200 rows of pairs; wrote draft"),
    ],
)
def test_a_trained_model_is_told_in_a_line(rows: tuple[str, ...], forward: bool, said: str) -> None:
    model = Trained(product="tuner", wrote=("draft",), learned_from={"pairs": 1200}, rows=rows)
    line = trained(model, forward=forward).plain
    assert re.sub(r"(?<=01234567)[0-9a-f]+", "", line) == f"model tuner  {said}"
