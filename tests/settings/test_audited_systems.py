"""Every system says how its release is audited, or why no verdict of its release needs people."""

from __future__ import annotations

from pathlib import Path

import pytest
from in_process import prepared

from normloom.settings.systems import system_named, system_names
from normloom.steps.graph import stages_of
from normloom.store.store import Store

TRUTH_KNOWN = "predictions are held to labels that the source has"
WITHOUT = {
    "benchmark": "its release has figures; the verdicts on responses are those of the data set, which is audited",
    "conllm": TRUTH_KNOWN,
    "cross_align": TRUTH_KNOWN,
    "cross_cultural": TRUTH_KNOWN,
    "demo_safetybench": "answers are people's; ratings of models are held to them",
    "missing_modality": TRUTH_KNOWN,
    "persodpo": "pairs have margins of signals, and no verdict",
    "persopilot": "facts are stated; what a model predicts is held to labels, and people decide about the rest",
}
VERDICTS = {"alignment", "misaligned", "judged"}  # what a judge says of a row, by the names of its column


@pytest.mark.parametrize("system", system_names())
def test_a_release_with_a_judge_s_verdicts_can_be_audited(system: str, tmp_path: Path) -> None:
    ends = prepared(system, Store(tmp_path)).ends
    columns, view = ends[0].contract.columns, system_named(system).audit
    if view is None:
        assert VERDICTS.isdisjoint(columns), WITHOUT.get(system)
        return
    assert system not in WITHOUT
    assert {view.verdict, *view.show, *view.by} <= set(columns)
    assert view.verdict not in view.show  # it would sway people
    upstream = {stage.name: stage for stage in stages_of(ends[0])}
    assert view.margin in upstream[ends[0].inputs[0].name].contract.columns  # of the table that it is made of
