"""A generate stage of ours against Ray Data LLM and distilabel: same engine (vLLM), same model, same prompts.

Each runs in its own environment (`--normloom`, `--ray-data`, `--distilabel` name its Python; a peer without one is
skipped), one after another, on a quarter of the prompts and on all of them. The cost of the additional rows is
compared, so that start-up does not count. `start_s` is the rest of the shorter run: processes, engine, shutdown.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import Report, builtin_prompts, parser

from normloom.core.models.protocol import ModelSpec
from normloom.models.files.locate import locate

FOLDER = Path(__file__).parent / "peers"
SCRIPTS = {"normloom": "normloom_stage.py", "ray_data": "ray_data_llm.py", "distilabel": "distilabel_vllm.py"}
SYSTEM = "You are a helpful assistant. Answer in a few sentences."


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    for name in SCRIPTS:
        arguments.add_argument(f"--{name.replace('_', '-')}", help="the Python of its environment")
    arguments.add_argument("--requests", type=int, default=160)
    arguments.add_argument("--max-tokens", type=int, default=192)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--repeats", type=int, default=1)
    given = arguments.parse_args()
    report = Report(given.json)
    model = str(locate(ModelSpec(model="SmolLM2-135M-Instruct")))
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory(prefix="normloom-bench-") as folder:
        prompts = Path(folder) / "prompts.jsonl"
        prompts.write_text(
            "".join(json.dumps({"system": SYSTEM, "user": text}) + "\n" for text in builtin_prompts(given.requests))
        )
        for _ in range(given.repeats):
            for name, script in SCRIPTS.items():
                python = getattr(given, name)
                if python:
                    report.note(name)
                    figures = run([python, str(FOLDER / script), prompts, model, given.max_tokens, given.threads])
                    rows.append({"platform": name, **figures})
    ours = [row["rows_per_second"] for row in rows if row["platform"] == "normloom"]
    for row in rows:
        row["ratio"] = row["rows_per_second"] / max(ours) if ours and "rows_per_second" in row else None
    report.add("Rows a second, start left out; ratio to ours", rows)
    report.end()


def run(command: list[Any]) -> dict[str, Any]:
    """Run one platform and return its figures."""
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    environment |= {"OMP_NUM_THREADS": str(command[-1]), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    done = subprocess.run(list(map(str, command)), env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[1]} failed:\n{done.stderr[-3000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


if __name__ == "__main__":
    main()
