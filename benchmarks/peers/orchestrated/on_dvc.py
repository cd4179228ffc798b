"""DVC: `dvc repro` with a stage per step, whose dependencies are the files that its author lists."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from orchestrated.settings import PROMPTS, SETTINGS, Built, Settings

CODE = "orchestrated/steps.py"
HELPER = "orchestrated/scores.py"
LAST = Path("selected.parquet")
READS = {
    "classify": str(PROMPTS),
    "generate": "classify.parquet",
    "judge": "generate.parquet",
    "select": "judge.parquet",
}


def pipeline() -> dict[str, object]:
    """Return dvc.yaml. Reading is no stage of its own: DVC follows the file of prompts itself."""
    stages: dict[str, dict[str, object]] = {}
    for step, source in READS.items():
        out = str(LAST) if step == "select" else f"{step}.parquet"
        command = f"{sys.executable} -m orchestrated.dvc_step {step} {source} {out}"
        stages[step] = {"cmd": command, "deps": [CODE, source], "outs": [out]}
    stages["judge"] |= {"deps": [CODE, HELPER, READS["judge"]], "params": [{str(SETTINGS): ["threshold"]}]}
    return {"stages": stages}


def build(settings: Settings) -> Built:  # noqa: ARG001  # DVC reads the file itself
    """Reproduce the pipeline."""
    dvc = [sys.executable, "-m", "dvc"]
    if not Path(".dvc").exists():
        subprocess.run([*dvc, "init", "--quiet", "--no-scm"], check=True)
        subprocess.run([*dvc, "config", "core.analytics", "false"], check=True)
        Path("dvc.yaml").write_text(yaml.safe_dump(pipeline()))
    subprocess.run([*dvc, "repro", "--quiet"], check=True)
    return Built([LAST])
