"""What DPO changes: accuracy and loss on held-out pairs of the published replies, over several seeds, in one run.

The pairs are those of `normloom build persodpo --profile replay`: one a prompt, both replies valid, prompt and reply
short enough for a small computer. Half of the prompts are held out. The stages' own functions read the reference,
train and read the held-out pairs; a seed draws the adapter's first weights and the order of the pairs.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from common import Clock, Report, parser

from normloom.core.protocol import ModelSpec
from normloom.models import load_model
from normloom.schemas.preference_tables import CONTENT, HELD_OUT, TRAIN
from normloom.settings.settings import stages_for
from normloom.steps.graph import stages_of
from normloom.store.store import Store
from normloom.tasks.preferences.dpo.training import FOLDER, Lora
from normloom.tasks.preferences.dpo_figures import MEASURES, START, mean_over_groups, scores
from normloom.tasks.preferences.log_probs import SIDES, Reading, log_probs, request
from normloom.tasks.preferences.shortcuts import shortcuts
from normloom.tasks.preferences.train_dpo import Dpo, learn
from normloom.testing import made

PUBLISHED = Path(__file__).parents[2] / "shared" / "data" / "persodpo" / "generations.parquet"
DROPPED = "source.path={source};reply.context_turns=1;pairs.held_out=0.5"


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--source", type=Path, default=PUBLISHED, help="the published replies; prompts next to it")
    arguments.add_argument("--model", default="SmolLM2-135M-Instruct")
    arguments.add_argument("--train", type=int, default=80, help="pairs that are trained on")
    arguments.add_argument("--held-out", type=int, default=60, help="pairs that are read afterwards")
    arguments.add_argument("--max-tokens", type=int, default=200, help="longest prompt with a reply")
    arguments.add_argument("--steps", type=int, default=40, help="of two pairs")
    arguments.add_argument("--learning-rate", type=float, default=2e-4)
    arguments.add_argument("--last-layers", type=int, default=8, help="blocks that have an adapter")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    given = arguments.parse_args()
    report = Report(given.json)
    policy = ModelSpec(model=given.model, dtype="float32", threads=2)

    clock = Clock()
    with clock.running():
        pairs = short_pairs(given, load_model(policy, threads=2))
        report.note(f"{pairs.height} pairs; reading the reference")
        reference = read(pairs, policy, None, "base")
    report.add("Pairs", [{**counted(pairs), "cpu_s": clock.cpu, "wall_s": clock.wall}])
    report.add("Shortcuts in the pairs", audit(pairs))

    runs, found = [], []
    for seed in given.seeds:
        report.note(f"training with seed {seed}")
        curve, tuned, clock = trained(pairs, reference, policy, seed, given)
        scored = scores(tuned, reference, beta=Dpo().beta).with_columns(seed=pl.lit(seed))
        runs.append(scored)
        tokens = curve["tokens"][-1]
        found += [{"seed": seed, **line, "tokens": tokens, "cpu_s": clock.cpu} for line in figures(scored)]
    report.add("On held-out pairs, by seed", found)
    report.add("On held-out pairs, mean over seeds (prompts are resampled with all seeds)", list(figures(pl.concat(runs))))
    report.end()


def short_pairs(given: Namespace, model: Any) -> pl.DataFrame:
    """Return the first pair of each prompt whose replies are both valid and short enough, in an order of its own."""
    with TemporaryDirectory(prefix="normloom-bench-") as folder:
        store = Store(Path(folder))
        settings = DROPPED.format(source=given.source).split(";")
        ends = stages_for("persodpo", profile="replay", assignments=settings, store=store).ends
        [stage] = [stage for stage in stages_of(*ends) if stage.name == "pairs"]
        every = store.scan(made("persodpo", [stage], store)["pairs"].ref).filter(rejected_kind=CONTENT).collect()
    one = every.sample(fraction=1, shuffle=True, seed=0).unique("dialogue", keep="first", maintain_order=True)

    def tokens(pair: dict[str, Any]) -> int:
        exchanges = [model.prompter.exchange(request(pair, pair[side]), end=0) for side in SIDES]
        return max(len(exchange.prompt) + len(exchange.reply) for exchange in exchanges)

    short = one.filter(pl.Series([tokens(pair) <= given.max_tokens for pair in one.iter_rows(named=True)]))
    wanted = {TRAIN: given.train, HELD_OUT: given.held_out}
    return pl.concat([short.filter(split=split).head(number) for split, number in wanted.items()])


def read(pairs: pl.DataFrame, policy: ModelSpec, adapter: Path | None, name: str) -> pl.DataFrame:
    """Return the log-probabilities of pairs by the policy, with an adapter if one is given."""
    model: Any = load_model(policy, threads=2)
    if adapter:
        from peft import PeftModel

        model.reader.model = PeftModel.from_pretrained(model.reader.model, adapter).eval()
    return log_probs.function(pairs, Reading(), model, policy=name).rows


def trained(
    pairs: pl.DataFrame, reference: pl.DataFrame, policy: ModelSpec, seed: int, given: Namespace
) -> tuple[pl.DataFrame, pl.DataFrame, Clock]:
    """Return the curve of a training, what the tuned policy makes of the held-out pairs, and the time of both."""
    dpo = Dpo(
        batch=2,
        accumulate=1,
        max_steps=given.steps,
        learning_rate=given.learning_rate,
        warmup_steps=3,
        seed=seed,
        checkpoint_steps=given.steps,
        lora=Lora(last_layers=given.last_layers),
    )

    def tell(step: int, of: int, told: Mapping[str, float]) -> None:
        if step % 10 == 0:
            Report(as_json=True).note(f"  step {step} of {of}: loss {told['unweighted_loss']:.4f}")

    clock = Clock()
    with TemporaryDirectory(prefix="normloom-bench-") as folder, clock.running():
        curve = learn(pairs, dpo, reference, policy=policy, scratch=Path(folder), tell=tell).rows
        tuned = read(pairs.filter(split=HELD_OUT), policy, Path(folder) / FOLDER, "tuned")
    return curve, tuned, clock


def figures(scored: pl.DataFrame) -> list[dict[str, Any]]:
    """Return each measure with its interval over prompts, and what it is without training."""
    made = {name: mean_over_groups(scored, measure) for measure, name in MEASURES.items()}
    starts = {name: START[measure] for measure, name in MEASURES.items()}
    return [
        {"measure": name, "value": one.value, "low": one.low, "high": one.high, "untrained": starts[name]}
        for name, one in made.items()
    ]


def audit(pairs: pl.DataFrame) -> list[dict[str, Any]]:
    """Return how well length, format or generator alone tells chosen from rejected."""
    return shortcuts.function(pairs).rows.select("of", "value", "low", "high").to_dicts()


def counted(pairs: pl.DataFrame) -> dict[str, int]:
    return {split: pairs.filter(split=split).height for split in (TRAIN, HELD_OUT)}


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
