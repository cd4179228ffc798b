"""The training stage against a plain TRL script: tokens per second, memory, and what resuming after a kill costs.

Both train the same adapter by DPO on the same pairs, each in a process of its own, in turns; both are given the
reference's log probabilities. Time runs from loading the model to the saved adapter, after libraries have been
imported. The stage goes through the stage runner: keys, checkpoints with digests, progress, checks and commit included.
`ratio` is the stage's rate over the script's; `process_cpu_s` is the whole process, imports included.
`--model qwen2-0.5b` has the shape of Qwen2-0.5B with random weights, for a GPU.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import resource
import signal
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from common import EMBEDDED, Clock, Report, parser

from normloom.core.contract import Contract
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Output, Stage
from normloom.schemas.training import preference_tables
from normloom.steps.args import Args
from normloom.store.store import Store
from normloom.tasks.preferences.dpo.log_probs import SIDES
from normloom.tasks.preferences.dpo.train_dpo import Dpo, learn, train_dpo
from normloom.tasks.preferences.dpo.training import _configured
from normloom.tasks.tuning.lora import Lora, lora_config
from normloom.tasks.tuning.policies import load
from normloom.testing import made

QWEN = "qwen2-0.5b"
INSTRUCTION = "Continue the conversation with a person whose persona is given."
BEFORE = -60.0  # what the reference gave each reply
NAMED = ("prompt_id", "chosen_id", "rejected_id", "messages", *SIDES, "weight", "split")
PAIRS = Contract(columns={name: preference_tables.PAIRS.columns[name] for name in NAMED})
READ = Contract(columns={"pair_id": pl.String(), "chosen_logprob": pl.Float64(), "rejected_logprob": pl.Float64()})


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--model", default=EMBEDDED.model, help=f"a model of transformers, or {QWEN}")
    arguments.add_argument("--pairs", type=int, default=16)
    arguments.add_argument("--words", type=int, default=30, help="of a reply; a prompt has twice as many")
    arguments.add_argument("--batch", type=int, default=2, help="pairs in a step")
    arguments.add_argument("--steps", type=int, default=6)
    arguments.add_argument("--checkpoint-steps", type=int, default=2)
    arguments.add_argument("--last-layers", type=int, default=8, help="blocks that have an adapter")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--repeats", type=int, default=2)
    given = arguments.parse_args()
    report = Report(given.json)
    with TemporaryDirectory(prefix="normloom-bench-") as folder:
        if given.model == QWEN:
            given.model = str(qwen(Path(folder) / QWEN))
        runs: dict[str, list[dict[str, float]]] = {"script": [], "stage": []}
        for repeat in range(given.repeats):
            for name in (("script", "stage"), ("stage", "script"))[repeat % 2]:
                report.note(f"repeat {repeat + 1} of {given.repeats}: {name}")
                runs[name].append(alone(name, given, Path(folder) / f"{name}-{repeat}"))
        lines = [
            {"run": name, **{what: median(run[what] for run in some) for what in some[0]}}
            for name, some in runs.items()
        ]
        for line in lines:
            line["ratio"] = line["tokens/s"] / lines[0]["tokens/s"]
            line["cpu_ratio"] = line["tokens/cpu_s"] / lines[0]["tokens/cpu_s"]
        report.add("The training stage against TRL by a plain script, medians", lines)

        report.note("killed half-way, and resumed")
        scratch = Path(folder) / "killed"
        alone("killed", given, scratch)
        resumed = alone("resume", given, scratch)
        report.add("Resuming after SIGKILL", [resumed])
    report.end()


def alone(run: str, given: Namespace, place: Path) -> dict[str, float]:
    """Run in a process of its own and return what it measured, with its peak memory; nothing if it was killed."""
    place.mkdir(exist_ok=True)
    context = multiprocessing.get_context("spawn")
    told, end = context.Pipe(duplex=False)
    process = context.Process(target=_alone, args=(run, given, place, end))
    process.start()
    end.close()
    try:
        found: dict[str, float] = told.recv()
    except EOFError:
        found = {}
    process.join()
    return found


def _alone(run: str, given: Namespace, place: Path, end: Any) -> None:
    import torch

    _import_libraries()
    torch.set_num_threads(given.threads)
    own = importlib.import_module(Path(__file__).stem)  # keys are made of sources that a module of this name has
    found: dict[str, float] = getattr(own, run)(given, place)
    used = resource.getrusage(resource.RUSAGE_SELF)
    found["peak_rss_mb"], found["process_cpu_s"] = used.ru_maxrss / 1024, used.ru_utime + used.ru_stime
    if torch.cuda.is_available():
        found["peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 2**20
    end.send(found)


def _import_libraries() -> None:
    """Import what both use before a clock starts; TRL and transformers import their modules when they are named."""
    from datasets import Dataset  # noqa: F401  # imported before the clock starts
    from peft import LoraConfig, get_peft_model  # noqa: F401  # imported before the clock starts
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PrinterCallback  # noqa: F401  # imported before the clock starts
    from trl import DPOConfig, DPOTrainer  # noqa: F401  # imported before the clock starts


# -- the two that are compared ----------------------------------------------------------------------------------------


def stage(given: Namespace, place: Path) -> dict[str, float]:
    """Run the training stage by the stage runner."""
    pairs = Stage(
        name="pairs", function=made_pairs, arguments=Made(number=given.pairs, words=given.words), contract=PAIRS
    )
    reference = Stage(name="reference", function=made_reference, arguments=Nothing(), contract=READ, inputs=(pairs,))
    store = Store(place)
    made("bench", [reference], store)
    clock = Clock()
    with clock.running():
        manifest = made("bench", [train_dpo(pairs, dpo(given), reference, policy=policy(given))], store)["train_dpo"]
    return measured(store.scan(manifest.ref).collect()["tokens"].max(), clock)


def script(given: Namespace, place: Path) -> dict[str, float]:
    """Train as a plain script does, with checkpoints as often."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import DPOTrainer

    class Plain(DPOTrainer):  # type: ignore[misc]  # TRL has no types
        """TRL's trainer, given the log-probabilities of the reference as the stage is."""

        def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
            return dataset.add_column("ref_chosen_logps", [BEFORE] * len(dataset)).add_column(
                "ref_rejected_logps", [BEFORE] * len(dataset)
            )

    rows = [
        {"prompt": pair["messages"], **{side: [{"role": "assistant", "content": pair[side]}] for side in SIDES}}
        for pair in table(given.pairs, given.words).iter_rows(named=True)
    ]
    clock, args = Clock(), dpo(given)
    with clock.running():
        loaded = load(policy(given))
        trainer = Plain(
            model=loaded.model,
            peft_config=lora_config(args.lora, loaded.model),
            args=_configured(args, place, on_cpu=loaded.model.device.type == "cpu"),
            train_dataset=Dataset.from_list(rows),
            processing_class=loaded.tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        trainer.save_model(str(place / "adapter"))
    return measured(max(entry.get("num_tokens", 0) for entry in trainer.state.log_history), clock)


def measured(tokens: Any, clock: Clock) -> dict[str, float]:
    """Return rates of a run from the loading of the model to the saved adapter."""
    return {
        "tokens": float(tokens),
        "wall_s": clock.wall,
        "cpu_s": clock.cpu,
        "tokens/s": tokens / clock.wall,
        "tokens/cpu_s": tokens / clock.cpu,
    }


# -- killed and resumed -----------------------------------------------------------------------------------------------


def killed(given: Namespace, place: Path) -> dict[str, float]:
    """Train until SIGKILL half-way."""

    def die(step: int, of: int, _: Mapping[str, float]) -> None:
        if step > of // 2:
            os.kill(os.getpid(), signal.SIGKILL)

    _learn(given, place, die)
    raise AssertionError("it was not killed")


def resume(given: Namespace, place: Path) -> dict[str, float]:
    """Train in the folder of a run that was killed."""
    steps: list[tuple[int, float]] = []
    started = time.perf_counter()
    _learn(given, place, lambda step, *_: steps.append((step, time.perf_counter() - started)))
    died, first = given.steps // 2 + 1, steps[0][0]
    return {
        "killed_after_step": died,
        "first_step": first,
        "steps_made_twice": died + 1 - first,
        "first_step_s": steps[0][1],
    }


def _learn(given: Namespace, place: Path, tell: Any) -> None:
    rows = table(given.pairs, given.words).with_columns(row_id="prompt_id")
    reference = before(rows)
    learn(rows, dpo(given), reference, policy=policy(given), scratch=place, tell=tell)


# -- what is trained on -----------------------------------------------------------------------------------------------


class Made(Args):
    """How many pairs are made up."""

    number: int
    words: int


class Nothing(Args):
    """No setting."""


def table(number: int, words: int) -> pl.DataFrame:
    """Return pairs of words that say nothing."""
    said = ("sea", "walk", "tea", "train", "bread", "harbour", "garden", "music")

    def text(seed: int, length: int) -> str:
        return " ".join(said[(seed * 5 + place * (seed % 3 + 1)) % len(said)] for place in range(length))

    return pl.DataFrame(
        [
            {
                "prompt_id": f"p{place}",
                "chosen_id": f"c{place}",
                "rejected_id": f"r{place}",
                "messages": [
                    {"role": "system", "content": INSTRUCTION},
                    {"role": "user", "content": text(place, 2 * words)},
                ],
                "chosen": text(place + 1, words),
                "rejected": text(place + 2, words - 1),
                "weight": 0.6,
                "split": preference_tables.TRAIN,
            }
            for place in range(number)
        ],
        schema=PAIRS.columns,
    )


def before(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return a reference of the pairs: its values change no time."""
    return pairs.select(
        pair_id="row_id", chosen_logprob=pl.lit(BEFORE), rejected_logprob=pl.lit(BEFORE), row_id="row_id"
    )


def made_pairs(arguments: Made) -> Output:
    """Return the pairs."""
    rows = table(arguments.number, arguments.words)
    return Output(
        rows=rows.with_columns(parents=pl.lit([], dtype=pl.List(pl.String)), content="prompt_id"), attempts=rows.height
    )


def made_reference(rows: pl.DataFrame, arguments: Nothing) -> Output:  # noqa: ARG001  # as every stage's function
    """Return the reference of the pairs."""
    return Output(rows=before(rows), attempts=rows.height)


def policy(given: Namespace) -> ModelSpec:
    """Return the spec of the model that is trained."""
    return ModelSpec(model=given.model, dtype="float32", threads=given.threads)


def dpo(given: Namespace) -> Dpo:
    """Return the settings of the training, without weights: the script has none."""
    return Dpo(
        batch=given.batch,
        accumulate=1,
        max_steps=given.steps,
        warmup_steps=1,
        checkpoint_steps=given.checkpoint_steps,
        weighted=False,
        lora=Lora(last_layers=given.last_layers),
    )


def qwen(place: Path) -> Path:
    """Write a model of Qwen2-0.5B's shape with random weights, and the embedded model's tokenizer."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from normloom.models.loading import tokenizer_of

    shape = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24}
    heads = {"num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True}
    Qwen2ForCausalLM(Qwen2Config(vocab_size=151_936, **shape, **heads)).save_pretrained(place)
    tokenizer_of(EMBEDDED).save_pretrained(place)
    return place


if __name__ == "__main__":
    main()
