from __future__ import annotations

from pathlib import Path

from in_process import prepared

from normloom.run.imports import needs_kernels
from normloom.steps.graph import stages_of
from normloom.store.store import Store


def test_kernels_are_needed_for_stages_that_run_them_in_the_build_itself(tmp_path: Path) -> None:
    stages = stages_of(*prepared("savacu", Store(tmp_path)).ends)
    assert needs_kernels(stages)
    found = {stage.name for stage in stages if needs_kernels([stage])}
    assert found == {"duplicates", "deduplicate", "prompt_splits"}
    assert not needs_kernels([])
