"""The bounds of a plan hold: no build asks for more than was said before it started, whatever its settings."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import SCRIPTED
from in_process import prepared as scripted
from upper_bounds import bounded, require_within

from normloom.core.bounds import Size, size_of, total
from normloom.core.errors import SourceError, SpendingError, UsageError
from normloom.planning.costs.ceiling import bills, unbounded
from normloom.planning.costs.spending import Spending, SpendingLimits
from normloom.planning.plan import read_sources
from normloom.settings.settings import Prepared, stages_for
from normloom.steps.graph import stages_of
from normloom.store.layout import MANIFEST
from normloom.store.store import Store
from normloom.testing.inline import made

OPTIONS = "options: {price_in: 1.0, price_out: 2.0, words: 9, yes_rate: %s}"
FRAMED = OPTIONS.replace("words", 'frame: \'{"response": "%%s"}\', words') % 0.2
JUDGE, OTHER = OPTIONS % 0.7, OPTIONS % 0.2


def role(name: str, options: str = OTHER) -> str:
    return f"{{engine: scripted, model: {name}, {options}}}"


MODELS = {
    "savacu": f"models={{embedder: {{engine: scripted, model: e}}, classifier: {role('c')}, expander: {role('x')}, "
    f"judge: {role('j', JUDGE)}, generators: {{g1: {role('m')}, g2: {role('n')}}}}}",
    "demo_safetybench": f"models={{embedder: {{engine: scripted, model: e}}, classifier: {role('c')}, "
    f"expander: {role('x')}, raters: {{r1: {role('r')}}}}}",
    "benchmark": f"models={{m1: {role('m')}}}",
}
MODELS["misaligntrade"] = MODELS["savacu"].replace("judge:", f"typer: {role('t')}, judge:")
UNLIMITED = ["spending.max_requests=null", "spending.max_cost=null"]


def prepared(system: str, store: Store, *assignments: str) -> Prepared:
    own = [f"judges={{j1: {role('j', JUDGE)}}}"] if system == "benchmark" else []
    given_ = [MODELS[system], *own, *UNLIMITED, *assignments]
    return stages_for(system, profile="local", assignments=given_, store=store)


texts = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=60).filter(
    lambda text: bool(text.strip()) and "\r" not in text and "\n" not in text
)


@settings(max_examples=12)
@given(
    prompts=st.lists(texts, min_size=1, max_size=3, unique=True),
    candidates=st.integers(1, 2),
    rounds=st.integers(0, 1),
    minimum=st.integers(0, 2),
    quota=st.integers(1, 2),
    route=st.sampled_from(["exhaustive", "shortlist"]),
    calibration=st.sampled_from(["none", "content_free"]),
    system=st.sampled_from(["savacu", "misaligntrade"]),
)
def test_a_build_stays_within_what_was_said_before(
    prompts: list[str],
    candidates: int,
    rounds: int,
    minimum: int,
    quota: int,
    route: str,
    calibration: str,
    system: str,
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "prompts.jsonl"
        path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
        store = Store(Path(folder) / "store")
        found = prepared(
            system,
            store,
            f"source.path={json.dumps(str(path))}",
            f"generate.candidates={candidates}",
            f"rounds={rounds}",
            f"expand={{minimum: {minimum}, quota: {quota}, dimensions: [safety]}}",
            f"classify={{route: {route}, part_rows: 2}}",
            f"judge.calibration={calibration}",
        )
        planned, most = bounded(system, found, store)
        manifests = made(system, found.ends, store)
        require_within(manifests, most)
        cost = sum(one.work.usage.get("cost", 0) for one in manifests.values() if one.work)
        assert cost <= sum(bill.cost for bill in bills(planned, most)) + 1e-12
        assert all(not bill.requests for bill in bills(*bounded(system, found, store)))  # all is there


@pytest.mark.parametrize("system", ["demo_safetybench", "benchmark"])
@pytest.mark.parametrize("settings_", [[], ["detector.verdict=written"]])
def test_the_other_systems_do_too(system: str, settings_: list[str], tmp_path: Path) -> None:
    own = settings_ if system == "benchmark" else ["classify.route=exhaustive", "expand.minimum=1"]
    store = Store(tmp_path)
    found = prepared(system, store, "source.limit=2", *own)
    planned, most = bounded(system, found, store)
    asking = [one.stage for one in planned if one.stage.model]
    require_within(made(system, asking, store), most)
    assert {bill.stage for bill in bills(planned, most)} == {
        one.stage.name for one in planned if one.stage.model and one.stage.model.engine == "scripted"
    } - {"calibrate", "embed"}


OTHER_ENCODER = "{engine: scripted, model: e}"
ASKED = {
    "persodpo": [
        f"models.encoder={OTHER_ENCODER}",
        "models.policy=null",
        f"models.nli={role('j')}",
        f"models.generators={{g1: {role('m', FRAMED)}}}",
        "source.limit=2",
    ],
} | {
    f"cross_cultural {by}": [
        f"models={{encoder: {{engine: scripted, model: e}}, entrants: {{m: {role('c')}}}}}",
        f"by={by}",
        "ask={shots: [zero], prompt_languages: [english]}",
    ]
    for by in ("written", "scored")
}


@pytest.mark.parametrize("name", ASKED)
def test_so_does_every_other_system_that_asks_models(name: str, tmp_path: Path) -> None:
    store, system = Store(tmp_path), name.partition(" ")[0]
    found = stages_for(system, profile="local", assignments=[*ASKED[name], *UNLIMITED], store=store)
    planned, most = bounded(system, found, store)
    asking = [one.stage for one in planned if one.stage.model and one.stage.model.options.get("price_in")]
    manifests = made(system, asking, store)
    require_within(manifests, most)
    work = [manifests[stage.name].work for stage in asking]
    assert all(one and one.usage["requests"] for one in work)
    assert all(most[stage.name].known for stage in asking)


def test_a_writer_of_explanations_is_named_as_unbounded(tmp_path: Path) -> None:
    store, writer = Store(tmp_path), f"models.writer={role('w')}"
    found = scripted("cross_align", store, writer, "adapter.epochs=1")
    planned, most = bounded("cross_align", found, store)
    assert "reworded" in str(unbounded(planned, most))
    tables = made("cross_align", [one.stage for one in planned if one.stage.name == "reworded"], store)
    reworded = tables["reworded"]
    assert reworded.work
    assert reworded.work.usage["requests"] == reworded.count("rows") * 3
    assert reworded.count("rows") == tables["explanations"].count("rows")


def test_what_nobody_can_bound_is_said_and_stopped_when_a_limit_is_reached(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assistant = f"models={{assistant: {role('a')}}}"
    found = stages_for("persopilot", profile="local", assignments=[assistant], store=store)
    planned, most = bounded("persopilot", found, store)
    asking = [one.stage for one in planned if one.stage.model]
    assert not set(most) & {stage.name for stage in asking}
    said = unbounded(planned, most)
    assert said is not None
    assert all(stage.name in said for stage in asking)
    with pytest.raises(SpendingError, match="--max-requests 1 is reached"):
        made("persopilot", asking, store, spending=Spending(SpendingLimits(max_requests=1)))
    assert unbounded(*bounded("savacu", prepared("savacu", store), store)) is None


def readme_profile(path: Path, **options: object) -> Path:
    """Write README's profile of one's own models, from scripted ones with a price."""
    model = {"engine": "scripted", "model": "own", "options": {"price_in": 1, "price_out": 2, "words": 9, **options}}
    models = {"classifier": model, "expander": model, "judge": model, "generators": {"a": model, "b": model}}
    system = {"models": models, "classify": {"route": "shortlist", "delta": 0.5}}
    path.write_text(json.dumps({"systems": {"savacu": system}}))
    return path


def of_readme(store: Store, place: Path, *assignments: str) -> Prepared:
    profile = readme_profile(place / "mine.yaml")
    return stages_for("savacu", profile=str(profile), assignments=["source.limit=4", *assignments], store=store)


def test_four_prompts_under_a_profile_of_one_s_own_ask_for_no_fortune(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    found = of_readme(store, tmp_path)
    planned, most = bounded("savacu", found, store)
    requests = sum(bill.requests for bill in bills(planned, most))
    assert most["gaps"].size.rows == most["expand"].requests == 0
    assert requests < 1_500
    assert "Sparse labels are not expanded" in found.config.notes[0]
    require_within(made("savacu", found.ends, store), most)

    asked = of_readme(store, tmp_path, "expand.minimum=100")
    assert asked.config.notes == []
    planned, most = bounded("savacu", asked, store)
    assert most["expand"].size.rows == 111 * 100  # what four prompts asked for in silence
    with pytest.raises(UsageError, match=r"requests to hosted models, more than --max-requests 20,000 .*score_1"):
        asked.config.spending.limits.hold(bills(planned, most))


def test_a_limit_names_what_makes_the_bound_and_how_to_raise_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    planned, most = bounded("savacu", of_readme(store, tmp_path), store)
    bill = bills(planned, most)
    requests, cost = sum(one.requests for one in bill), sum(one.cost for one in bill)
    SpendingLimits(max_requests=requests, max_cost=cost).hold(bill)
    with pytest.raises(UsageError, match=rf"allow it with --max-requests {requests}$"):
        SpendingLimits(max_requests=requests - 1).hold(bill)
    with pytest.raises(UsageError, match=r"may cost up to .* USD, more than --max-cost 0 .*allow it with --max-cost"):
        SpendingLimits(max_cost=0).hold(bill)


def test_a_build_stops_at_its_limit_and_is_resumed_with_a_higher_one(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    found = of_readme(store, tmp_path, "rounds=0", "generate.part_rows=1", "judge.part_rows=1", "classify.delta=0.01")
    spending = Spending(SpendingLimits(max_requests=30))
    with pytest.raises(
        SpendingError,
        match=r"^stage '\w+' stopped: .*--max-requests 30 is reached.*rerun with a higher --max-requests to resume",
    ):
        made("savacu", found.ends, store, spending=spending)
    first = spending.requests
    assert first >= 30
    assert spending.reached
    assert not Spending(spending.limits).reached
    _, left = bounded("savacu", found, store)
    rest = Spending()
    made("savacu", found.ends, store, spending=rest)
    assert 0 < rest.requests <= sum(bound.requests for bound in left.values())
    whole = Spending()
    made("savacu", found.ends, Store(tmp_path / "other"), spending=whole)
    assert whole.requests == first + rest.requests  # nothing was asked twice


@pytest.mark.parametrize("system", sorted(SCRIPTED))
def test_each_system_is_planned_before_anything_is_made(system: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    planned, most = bounded(system, scripted(system, store), store)
    assert planned
    assert most.keys() <= {one.stage.name for one in planned}
    assert not list(store.root.iterdir())


def test_media_of_a_file_are_left_to_the_build(tmp_path: Path) -> None:
    sounds = tmp_path / "sounds.parquet"
    columns = {name: ["a"] for name in ("item_id", "label", "speaker", "generator", "source_item")}
    pl.DataFrame({**columns, "audio": [b"no sound"]}).write_parquet(sounds)
    store = Store(tmp_path / "store")
    found = scripted("conllm", store, f"source.path={sounds}")
    assert "media" not in read_sources(stages_of(*found.ends), system="conllm", store=store)


def test_a_source_that_cannot_be_used_fails_in_the_plan(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("prompt\n")
    found = stages_for(
        "savacu", profile="local", assignments=[f"source.path={tmp_path}/empty.csv"], store=Store(tmp_path)
    )
    with pytest.raises(SourceError):
        read_sources(stages_of(*found.ends), system="savacu", store=Store(tmp_path))


@given(st.lists(st.builds(Size, rows=st.integers(0, 9), tokens=st.integers(0, 99), longest=st.integers(0, 99))))
def test_sizes_add_up(sizes: list[Size]) -> None:
    assert total(sizes).rows == sum(size.rows for size in sizes)
    assert total(sizes).longest == max([0, *(size.longest for size in sizes)])


def test_the_size_of_a_table_is_that_of_its_texts(tmp_path: Path) -> None:
    rows = pl.DataFrame({"row_id": ["a" * 20, "b"], "prompt": ["äh", None], "examples": [["x"], []]})
    size = size_of(rows.lazy())
    assert (size.rows, size.longest) == (2, len("äh".encode()) + len('{"examples":["x"]}'))
    with (tmp_path / "one.csv").open("w") as stream:
        csv.writer(stream).writerow(["prompt"])
    assert size_of(pl.DataFrame({"count": [1]}).lazy()) == Size(rows=1)


def test_what_finished_parts_took_is_not_in_the_bound_of_the_rest(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    found = of_readme(store, tmp_path, "rounds=0", "generate.part_rows=1")
    table = made("savacu", found.ends, store)["generate_0_a"]
    (store.table_directory(table.ref) / MANIFEST).unlink()
    _, nearly = bounded("savacu", found, store)
    [first, *_] = sorted(store.table_directory(table.ref).glob("part-*.json"))
    first.unlink()
    planned, left = bounded("savacu", found, store)
    assert {one.stage.name: one.state for one in planned}["generate_0_a"] == "resumed"
    assert nearly["generate_0_a"].requests == 0 < left["generate_0_a"].requests
    assert nearly["generate_0_a"].tokens_out < left["generate_0_a"].tokens_out
