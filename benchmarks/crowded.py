"""How much models on the same processors slow each other down, depending on how long waiting threads spin.

    python benchmarks/crowded.py --processes 3

Each process generates the same texts with two threads, first alone, then all at once, with libgomp's
default spin count and with Normloom's. libgomp reads the environment once, so each measurement is a new process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

from normloom.core.machine.processors import SPINS
from normloom.models import GenerateRequest, ModelSpec, Sampling, load_model

WAYS = {"libgomp's own": {"GOMP_SPINCOUNT": "300000"}, "Normloom's": {"GOMP_SPINCOUNT": SPINS}}


def write(texts: int, tokens: int) -> float:
    """Return the seconds that the texts take once the model is loaded."""
    spec = ModelSpec(engine="transformers", model="SmolLM2-135M-Instruct", dtype="float32", device="cpu")
    model = load_model(spec, threads=2)
    requests = [
        GenerateRequest(
            instruction="Answer in plain words.",
            prompt=f"What is special about the number {number}?",
            seeds=(number,),
            sampling=Sampling(max_tokens=tokens),
        )
        for number in range(texts)
    ]
    model.generate(requests[:1])
    started = time.perf_counter()
    model.generate(requests)
    return time.perf_counter() - started


def together(processes: int, way: dict[str, str], arguments: list[str]) -> float:
    """Return the mean seconds of this many processes at once."""
    command = [sys.executable, __file__, "--write", *arguments]
    running = [
        subprocess.Popen(command, env=os.environ | way, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    return sum(float(process.communicate()[0]) for process in running) / processes


def main() -> None:
    """Print a line for each way to wait and each repeat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        print(write(options.texts, options.tokens))
        return
    arguments = ["--texts", str(options.texts), "--tokens", str(options.tokens)]
    for _ in range(options.repeats):
        for name, way in WAYS.items():
            alone, crowd = together(1, way, arguments), together(options.processes, way, arguments)
            print(json.dumps({"waiting": name, "alone_s": round(alone, 2), "ratio": round(crowd / alone, 1)}))


if __name__ == "__main__":
    main()
