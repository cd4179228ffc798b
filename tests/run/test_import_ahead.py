from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
from in_process import SCRIPTED, prepared
from prefect_home import prefect_home

from normloom.run.imports import needs_kernels
from normloom.steps.graph import stages_of
from normloom.store.store import Store


def test_kernels_are_needed_for_stages_that_run_them_in_the_build_itself(tmp_path: Path) -> None:
    stages = stages_of(*prepared("savacu", Store(tmp_path)).ends)
    assert needs_kernels(stages)
    found = {stage.name for stage in stages if needs_kernels([stage])}
    assert found == {"duplicates", "deduplicate", "prompt_splits"}
    assert not needs_kernels([])


def test_a_build_that_will_need_kernels_has_them_compiled_meanwhile_and_ends_that_with_itself(tmp_path: Path) -> None:
    home = prefect_home(tmp_path / "prefect")
    environment = {**os.environ, "PREFECT_HOME": str(home), "NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    command = [sys.executable, "-m", "normloom", "build", "savacu", "--limit", "4", "--store", str(tmp_path / "store")]
    for setting in [*SCRIPTED["savacu"], "resources.actors=0"]:
        command += ["--set", setting]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as build:
        assert build.stderr
        said = next((line for line in build.stderr if "starting Prefect's server" in line), None)
        assert said
        children = {" ".join(child.cmdline()[1:]): child for child in psutil.Process(build.pid).children()}
        build.send_signal(signal.SIGINT)
        build.stderr.read()
    assert not children["-m normloom.near_duplicates"].is_running()
