"""The summary of a build by scripted models: it shows what the tables hold."""

from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from scripted_profile import SETTINGS

from normloom.api.result import Result
from normloom.cli.output import summary
from normloom.cli.output.answers import scores_of
from normloom.cli.output.bill import bill_lines
from normloom.core.bounds import Bound, Size
from normloom.core.errors import UsageError
from normloom.core.models.protocol import ModelSpec
from normloom.flows.savacu.config import SavacuConfig
from normloom.flows.savacu.flow import SAVACU, savacu
from normloom.history.terms import SourceTerms
from normloom.planning.costs.spending import Bill, SpendingLimits
from normloom.planning.costs.spent import Spent
from normloom.run.build import BuildRequest, BuildResult, reuse
from normloom.settings.config import load_profile, override, validated
from normloom.settings.settings import stages_for
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, words_stage

PER_LABEL = "models.classifier={engine: scripted, model: c, options: {yes_rate: 0.2}}"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> tuple[BuildResult, Store]:
    store = Store(tmp_path_factory.mktemp("store"))
    config, _ = validated(
        SavacuConfig, override(load_profile("local", "savacu"), [*SETTINGS, PER_LABEL, "source.limit=24"])
    )
    ends = savacu(config)
    built(store, *ends, build=build_id(1), system="savacu")
    result = reuse(*ends, request=BuildRequest(system="savacu"), store=store)
    assert result is not None
    return result, store


@pytest.fixture(scope="module")
def shown(build: tuple[BuildResult, Store]) -> str:
    console = Console(file=StringIO(), width=80, record=True)
    summary.show(console, *build, system=SAVACU, profile="test")
    return console.export_text()


def test_labels_are_shown_by_precision_and_recall_of_those_that_are_kept(
    build: tuple[BuildResult, Store], shown: str
) -> None:
    result, store = build
    measured = store.scan(result["agreement"].ref).collect()
    for dimension in ("safety", "value", "cultural"):
        [line] = re.findall(rf"^ *{dimension} .*$", shown, re.MULTILINE)
        rows = {row["measure"]: row for row in measured.filter(dimension=dimension).iter_rows(named=True)}
        cells = [
            f"{row['rows']} {row['value']:.2f} {row['low']:.2f}-{row['high']:.2f}"
            for row in (rows["precision"], rows["recall"])
        ]
        top1 = rows["top1"]
        assert " ".join(line.split()) == f"{dimension} {' '.join(cells)} {top1['value']:.2f} {top1['rows']}"
        assert all(row["low"] < row["high"] for row in rows.values() if row["low"] is not None)
    assert "Precision: of the labels kept" in shown
    assert "macro recall" not in shown


def test_it_names_the_version_and_what_the_licence_of_the_source_forbids(
    build: tuple[BuildResult, Store], shown: str
) -> None:
    assert "1.0.0, licence of the source: apache-2.0" in " ".join(shown.split())
    result, store = build
    assert result.release is not None
    terms = SourceTerms(name="mine.csv", licence="cc-by-nc-4.0")
    changed = replace(result, release=result.release.model_copy(update={"source": terms}))
    console = Console(file=StringIO(), width=120, record=True)
    summary.show(console, changed, store, system=SAVACU, profile="test")
    assert "The licence cc-by-nc-4.0 forbids commercial use." in console.export_text()
    told = summary.as_json(changed, store)["release"]
    assert (told["version"], told["licences"], len(told["warnings"])) == ("1.0.0", ["cc-by-nc-4.0"], 1)


def test_it_suggests_a_query_that_reads_well(shown: str) -> None:
    assert 'normloom query "FROM savacu_publish SELECT prompt, response LIMIT 5"' in shown


def test_it_is_drawn_for_80_columns(shown: str) -> None:
    lines = [line for line in shown.splitlines() if not line.startswith("  normloom ")]  # commands are never broken
    assert max(map(len, lines)) <= 80


def test_a_build_that_left_stages_out_says_what_is_stale(build: tuple[BuildResult, Store]) -> None:
    def said(**changes: object) -> str:
        console = Console(file=StringIO(), width=120, record=True)
        result = replace(build[0], partial=True, seconds=75.0, reused=frozenset(), **changes)  # type: ignore[arg-type]  # fields
        summary.show(console, result, build[1], system=SAVACU, profile="test")
        return console.export_text()

    assert "No table is stale." in said()
    text = said(stale={"judge": "generate has other rows"})
    assert "Stale until they are rebuilt\n  judge                  generate has other rows" in text
    assert "1 min 15 s" in text
    assert "Where it is" not in text


def test_figures_costs_and_quarantine_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    paid = "options: {price_in: 1.0, price_out: 2.0, words: 9, yes_rate: 0.4}"
    model = f"{{m: {{engine: scripted, model: m, {paid}}}}}"
    assignments = [f"models={model}", f"judges={model}", "source.limit=4"]
    found = stages_for("benchmark", profile="local", assignments=assignments, store=store)
    built(store, *found.ends, build=build_id(1), system="benchmark")
    result = reuse(*found.ends, request=BuildRequest(system="benchmark"), store=store)
    assert result is not None
    monkeypatch.setattr(summary, "FIGURES_SHOWN", 1)
    console = Console(file=StringIO(), width=200, record=True)
    started = {"release": result.manifests[0]}
    result = replace(result, reused=frozenset(), spent=Spent(requests=16, cost=0.125, currency="EUR"))
    summary.show(console, replace(result, reads=started), store, system=found.system, profile="test")
    text = console.export_text()
    assert re.search(r"Figures: \w+", text)
    assert re.search(r"and \d+ more \(view benchmark_\w+\)", text)
    assert re.search(r"Spent +\d+ requests to hosted models, 0\.1250 EUR", text)
    assert f"Started from   {result.manifests[0].ref}" in text
    toy = echo_stage(words_stage("a", "b", "c"), aside="b")
    built(store, toy, build=build_id(2))
    again = reuse(toy, request=BuildRequest(system="toy"), store=store)
    assert again is not None
    [*_, aside] = [text.plain for text in summary._asides(again)]
    assert aside == "Quarantine of echo: asked 1 (view toy_echo_quarantined)."


def test_bills_of_several_hosted_models_are_added_up_and_prices_that_are_not_set_are_named() -> None:
    spec = ModelSpec(engine="openai", model="dear", options={"price_in": 1.0, "price_out": 2.0})
    bound = Bound(size=Size(), requests=3, tokens_in=1_000_000, tokens_out=10)
    found = [
        Bill.of(spec, bound, stage="judge"),
        Bill.of(spec, bound, stage="rate"),
        Bill.of(ModelSpec(engine="openai", model="free"), bound, stage="judge"),
    ]
    assert bill_lines(found) == [
        "At most 6 requests, 2,000,000 tokens in and 20 out, 2.00 USD (dear).",
        "At most 3 requests, 1,000,000 tokens in and 10 out (free).",
        "At most 9 requests, 3,000,000 tokens in and 30 out, 2.00 USD in all at hosted models.",
        "No price is set for free: options price_in and price_out, per million tokens.",
    ]
    other = spec.model_copy(update={"options": {**spec.options, "currency": "EUR"}})
    with pytest.raises(UsageError, match="models have prices in EUR and USD: give one currency"):
        SpendingLimits().hold([*found, Bill.of(other, bound, stage="judge")])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("{}", "each score is one written answer, not a probability"),
        ('{"scores": "votes"}', "each score is the share of 5 sampled answers"),
        ('{"scores": "votes", "votes": 7}', "each score is the share of 7 sampled answers"),
    ],
)
def test_scores_that_are_no_probabilities_are_said(build: tuple[BuildResult, Store], options: str, said: str) -> None:
    judged = build[0]["judge_0"]
    assert scores_of(judged) is None
    part = judged.parts[0].model_copy(update={"usage": {"written_answers": 3}})
    asked = {"parts": [part], "key_fields": {**judged.key_fields, "model": {"options": options}}}
    assert scores_of(judged.model_copy(update=asked)) == said


def test_small_models_and_removals_by_chance_are_warned_of(build: tuple[BuildResult, Store]) -> None:
    result, store = build
    tables = {one.stage: one for one in result.manifests}
    found, scored = tables["duplicates"], next(one for one in result.manifests if one.key_fields["model"])
    rows = found.parts[0].files["rows"].model_copy(update={"rows": 5})
    part = found.parts[0].model_copy(
        update={"files": {**found.parts[0].files, "rows": rows}, "metrics": {"expected_chance_pairs": 3.0}}
    )
    tables["duplicates"] = found.model_copy(update={"parts": [part]})
    fields = {**scored.key_fields, "model": {**scored.key_fields["model"], "model": "SmolLM2-135M-Instruct"}}
    tables[scored.stage] = scored.model_copy(update={"key_fields": fields})
    console = Console(file=StringIO(), width=400, record=True)
    summary.show(console, replace(result, manifests=list(tables.values())), store, system=SAVACU, profile="test")
    text = console.export_text()
    assert re.search(r"^duplicates: Random codes of", text, re.MULTILINE)
    assert "A 135M model took part: what it writes, judges and rates is near chance." in text


def test_a_build_without_its_released_table_says_so(build: tuple[BuildResult, Store]) -> None:
    with pytest.raises(UsageError, match="this build of savacu left out stage 'other', which is released"):
        _ = Result(replace(build[0], end="other"), build[1]).manifest
    with pytest.raises(UsageError, match=r"this build of savacu left out stage 'other'$"):
        _ = build[0]["other"]


def test_short_lists_and_labels_short_of_their_quota_are_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    short = [
        "classify.route=shortlist",
        "classify.shortlist=3",
        "expand={minimum: 9, quota: 3, min_words: 99, dimensions: [safety]}",
    ]
    config, _ = validated(SavacuConfig, override(load_profile("local", "savacu"), [*SETTINGS, PER_LABEL, *short]))
    ends = savacu(config)
    built(store, *ends, build=build_id(1), system="savacu")
    result = reuse(*ends, request=BuildRequest(system="savacu"), store=store)
    assert result is not None
    console = Console(file=StringIO(), width=200, record=True)
    summary.show(console, result, store, system=SAVACU, profile="test")
    text = console.export_text()
    assert "Labels (by yes/no questions about 3 a dimension, c)" in text
    assert re.search(r"Quotas missed by \d+ labels: .* and \d+ more \(view savacu_coverage\)", text)
