"""What an actor gets out of a GPU: its rate against the engine alone, how busy the GPU is, what a killed actor costs.

The large model has the shape of an 8B Llama with random weights (nothing is downloaded; its output is meaningless,
its cost is real); the small one is the embedded SmolLM2. The engine is vLLM if it is installed, else transformers.
Without a GPU the script runs on the processor, for instance with `--layers 2 --hidden 64`, to check that it works.

`ratio` is the stage's rate (keys, parts, commits and checks included, loading excluded) over the rate of the engine
called directly in this process with the same requests; for the run with a killed actor, over the undisturbed run.
`busy` is the mean GPU utilisation that nvidia-smi reports.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import signal
import subprocess
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import psutil
import torch
from common import Clock, Loom, Report, StageRun, Timed, Work, builtin_prompts, generating, parser, start_ray
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from normloom.core.machine.cache import cache_dir
from normloom.core.models.protocol import Closing, ModelSpec
from normloom.models import load_model
from normloom.models.files.locate import locate
from normloom.workers.resources import Resources

SMALL = "SmolLM2-135M-Instruct"
SAMPLE_SECONDS = 0.2


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--engine", choices=["vllm", "transformers"], default=None)
    arguments.add_argument("--models", nargs="+", choices=["small", "large"], default=["small", "large"])
    arguments.add_argument("--layers", type=int, default=32, help="of the large model")
    arguments.add_argument("--hidden", type=int, default=4096, help="its width; 4096 with 32 layers is 8B")
    arguments.add_argument("--requests", type=int, default=160)
    arguments.add_argument("--candidates", type=int, default=4, help="of each request")
    arguments.add_argument("--max-tokens", type=int, default=128)
    arguments.add_argument("--part-rows", type=int, default=16)
    arguments.add_argument("--threads", type=int, default=2)
    given = arguments.parse_args()
    engine = given.engine or ("vllm" if importlib.util.find_spec("vllm") else "transformers")
    gpus = torch.cuda.device_count()
    report = Report(given.json)
    work = generating(builtin_prompts(given.requests), candidates=given.candidates, max_tokens=given.max_tokens)
    device = torch.cuda.get_device_name(0) if gpus else "no GPU: the processor"
    report.add("Device", [{"device": device, "gpus": gpus, "engine": engine}])
    rates = []
    for name in given.models:
        directory = SMALL if name == "small" else str(random_llama(given.layers, given.hidden))
        rates += measured(name, directory, engine, work, given, report)
    report.add("Rates", rates)
    report.end()


def measured(name: str, model: str, engine: str, work: Work, given: Namespace, report: Report) -> list[dict[str, Any]]:
    """Return the figures of one model: the engine alone, one actor, two actors on one GPU, one that is killed."""
    whole = spec_of(model, engine, actors=1)
    report.note(f"{name}: the engine alone")
    alone, tokens = direct(whole, work, given)
    rows = [row(name, "engine alone", alone.wall, tokens, alone.wall, Busy())]
    start_ray(2 * given.threads)
    for actors in (1, 2):
        report.note(f"{name}: {actors} actor(s)")
        spec = spec_of(model, engine, actors=actors)
        share = 1 / actors if torch.cuda.is_available() else 0
        loom = Loom(Resources(actors=actors, threads=given.threads, gpus=share))
        loom.run(generating(builtin_prompts(4), candidates=1, max_tokens=4), spec, 1)
        busy = Busy()
        with busy.watching():
            run = loom.run(work, spec, given.part_rows)
        rows.append(row(name, f"{actors} actor(s)", run.clock.wall, run.manifest.tokens_out, alone.wall, busy))
        if actors == 1:
            report.note(f"{name}: its actor is killed half-way")
            rows.append(killed(name, loom, work, spec, run, given))
        loom.pool.close()
    import ray

    ray.shutdown()
    return rows


def spec_of(model: str, engine: str, *, actors: int) -> ModelSpec:
    """Return the model as one of several actors on a GPU holds it."""
    options = {"gpu_memory_utilization": 0.85 / actors} if engine == "vllm" and torch.cuda.is_available() else {}
    return ModelSpec(engine=engine, model=model, dtype="bfloat16", options=options)


def direct(spec: ModelSpec, work: Work, given: Namespace) -> tuple[Clock, int]:
    """Give all requests straight to the engine in this process, after a short run; then let go of it."""
    engine: Any = load_model(spec, threads=given.threads)
    loom = Loom(Resources(actors=0))
    rows = loom.inputs(work)
    short = generating(builtin_prompts(4), candidates=1, max_tokens=4)
    short.product(loom.inputs(short), short.arguments, model=engine)
    timed = Timed(engine)
    output = work.product(rows, work.arguments, model=timed)
    if isinstance(engine, Closing):
        engine.close()
    del engine
    gc.collect()
    torch.cuda.empty_cache()
    return timed.clock, output.tokens_out


def killed(name: str, loom: Loom, work: Work, spec: ModelSpec, whole: StageRun, given: Namespace) -> dict[str, Any]:
    """Run the stage again and kill its actor half-way; `seconds` above the undisturbed run are what that costs."""
    timer = threading.Timer(whole.clock.wall / 2, kill_one)
    timer.start()
    busy = Busy()
    with busy.watching():
        run = loom.run(work, spec, given.part_rows)
    timer.join()
    lost = run.clock.wall - whole.clock.wall
    figures = row(name, "1 actor, killed half-way", run.clock.wall, run.manifest.tokens_out, whole.clock.wall, busy)
    return {**figures, "lost_s": lost, "reload_s": run.manifest.load_seconds}


def kill_one() -> None:
    """Kill an actor of this process as the kernel does when memory runs out."""
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::ModelActor"):
            os.kill(process.pid, signal.SIGKILL)
            return


def row(name: str, how: str, seconds: float, tokens: int, alone: float, busy: Busy) -> dict[str, Any]:
    """Return one line of the table."""
    return {
        "model": name,
        "run": how,
        "seconds": seconds,
        "tokens/s": tokens / seconds,
        "ratio": alone / seconds,
        "busy": busy.share,
        "lost_s": None,
        "reload_s": None,
    }


@dataclass
class Busy:
    """The share of time that the first GPU was at work."""

    samples: list[float] = field(default_factory=list)

    @property
    def share(self) -> float | None:
        """The mean over what was watched, None without a GPU."""
        return mean(self.samples) / 100 if self.samples else None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Sample while the block runs."""
        command = shutil.which("nvidia-smi")
        if command is None:
            yield
            return
        period = f"--loop-ms={int(SAMPLE_SECONDS * 1000)}"
        asked = [command, "--id=0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", period]
        with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) as sampler:
            reader = threading.Thread(target=self._read, args=(sampler,))
            reader.start()
            try:
                yield
            finally:
                sampler.terminate()
                reader.join()

    def _read(self, sampler: subprocess.Popen[str]) -> None:
        assert sampler.stdout
        self.samples += [float(line) for line in sampler.stdout if line.strip().isdigit()]


def random_llama(layers: int, hidden: int) -> Path:
    """Return a directory with a Llama of this size with random weights and SmolLM2's tokenizer, made on first use."""
    target = cache_dir() / "models" / f"random-llama-{layers}x{hidden}"
    if target.is_dir():
        return target
    tokenizer = AutoTokenizer.from_pretrained(locate(ModelSpec(model=SMALL)))
    heads = max(hidden // 128, 2)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden * 7 // 2,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(heads // 4, 1),
        max_position_embeddings=8192,
        dtype="bfloat16",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    started = time.monotonic()
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    draft = target.with_name(f".{target.name}")
    model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    draft.rename(target)
    del model
    torch.cuda.empty_cache()
    size = sum(path.stat().st_size for path in target.glob("*.safetensors")) / 1e9
    print(f"made {target.name}: {size:.1f} GB in {time.monotonic() - started:.0f} s", flush=True)
    return target


if __name__ == "__main__":
    main()
