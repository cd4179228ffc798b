"""What routing costs over the base: tokens per second and memory of a base, an adapter, and adapters mixed per request.

All generate the same number of greedy tokens from the same prompts, in turns, with one base in memory. `mixed` gives
each request weights of its own, so a prefix that requests share cannot be read once; `base, read whole` does not share
it either, which isolates the cost of the adapters. `routed` also has the router read the state of each prompt.
`ratio` is the rate over that of the base. The adapters have random weights: their output does not matter.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
from common import EMBEDDED, Clock, Report, builtin_prompts, parser

from normloom.core.models.protocol import GenerateRequest, ModelSpec, Sampling
from normloom.models import load_model

MIB = 2**20
Writer = Callable[[list[GenerateRequest]], Any]


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--model", default=EMBEDDED.model, help="a model of transformers")
    arguments.add_argument("--adapters", type=int, default=3)
    arguments.add_argument("--rank", type=int, default=8)
    arguments.add_argument("--requests", type=int, default=8)
    arguments.add_argument("--tokens", type=int, default=24, help="generated per prompt")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--repeats", type=int, default=3)
    given = arguments.parse_args()
    report = Report(given.json)
    report.note(f"{given.adapters} adapters of rank {given.rank} on {given.model}")
    with TemporaryDirectory(prefix="normloom-bench-") as place:
        report.add(f"{given.requests} requests, {given.tokens} tokens each", measured(given, Path(place)))
    report.end()


def measured(given: Namespace, place: Path) -> list[dict[str, Any]]:
    """Return a row for each way to answer."""
    spec = ModelSpec(model=given.model, dtype="float32")
    base: Any = load_model(spec, threads=given.threads)
    alone = psutil.Process().memory_info().rss
    folders = [place / f"adapter{number}" for number in range(given.adapters)]
    for number, folder in enumerate(folders):
        save_adapter(base, folder, rank=given.rank, seed=number)
    whole: Any = _reading_whole(base)
    weights = np.random.default_rng(0).dirichlet(np.ones(given.adapters), given.requests)
    router = _router(base, given.adapters)

    def routed(requests: list[GenerateRequest]) -> Any:
        from normloom.models.routing.router import judged

        told, _ = judged(router, base.embed([str(request.prompt) for request in requests]))
        return base.mixed(folders, np.exp(told)).generate(requests)

    ways: dict[str, Writer] = {
        "base": base.generate,
        "base, read whole": whole.generate,
        "one adapter": lambda requests: base.adapted(folders[0]).generate(requests),
        "mixed": lambda requests: base.mixed(folders, weights).generate(requests),
        "routed": routed,
    }
    asked = requests_of(given)
    took: dict[str, list[float]] = {name: [] for name in ways}
    written: dict[str, int] = {}
    memory: dict[str, int] = {}
    for turn in range(given.repeats + 1):
        for name, write in ways.items():
            clock = Clock()
            with clock.running():
                answers = write(asked)
            written[name] = sum(one.tokens_out for answer in answers for one in answer.candidates)
            memory.setdefault(name, psutil.Process().memory_info().rss)
            if turn:  # the first warms up
                took[name].append(clock.wall)
    rates = {name: written[name] / median(times) for name, times in took.items()}
    return [
        {
            "answers": name,
            "tokens": written[name],
            "seconds": round(median(took[name]), 2),
            "tokens_per_s": round(rate, 1),
            "ratio": round(rate / rates["base"], 2),
            "over_base_mib": round((memory[name] - alone) / MIB),
        }
        for name, rate in rates.items()
    ]


def requests_of(given: Namespace) -> list[GenerateRequest]:
    """Return what is asked; texts are not ended early."""
    sampling = Sampling(temperature=0, max_tokens=given.tokens)
    return [
        GenerateRequest(instruction="You are a helpful assistant.", prompt=prompt, seeds=(1,), sampling=sampling)
        for prompt in builtin_prompts(given.requests)
    ]


def save_adapter(base: Any, folder: Path, *, rank: int, seed: int) -> None:
    """Write a LoRA adapter of random weights for a loaded base, in PEFT's files."""
    import json

    import torch
    from safetensors.torch import save_file

    drawn, tensors = torch.Generator().manual_seed(seed), {}
    for name, module in base.reader.model.named_modules():
        if name.endswith(("q_proj", "k_proj", "v_proj", "o_proj")):
            for part, shape in (("A", (rank, module.in_features)), ("B", (module.out_features, rank))):
                tensors[f"base_model.model.{name}.lora_{part}.weight"] = 0.01 * torch.randn(shape, generator=drawn)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}))


def _reading_whole(base: Any) -> Any:
    """Return the base that reads each prompt whole, as it must with weights by request."""
    from copy import copy

    whole = copy(base)
    whole.shares = False
    return whole


def _router(base: Any, adapters: int) -> Any:
    import torch

    from normloom.models.routing.router import Router

    width = base.embed(["x"]).shape[1]
    return Router(torch.zeros(width), torch.ones(width), torch.randn(adapters, width), hidden=32).eval()


if __name__ == "__main__":
    main()
