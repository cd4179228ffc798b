"""DPO on PersoDPO's released pairs, once per seed: what the policy prefers on prompts it has not seen.

`generations.parquet` is the authors' release, with `prompts.parquet` next to it. All tables are kept in `--store`:
rerun the same command to resume; nothing is made twice.
"""

from __future__ import annotations

import logging
from pathlib import Path
from statistics import mean, stdev

import polars as pl
from common import EMBEDDED, Report, parser
from scipy.stats import t as student

from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.flows.persodpo.training import trained
from normloom.settings.settings import Prepared, stages_for
from normloom.steps.graph import stages_of
from normloom.store.store import Store
from normloom.tasks.preferences.dpo.dpo_figures import MEASURES, START, mean_over_groups, scores
from normloom.testing import made

SETTINGS = (
    "quality.failures=left_out",  # all pairs differ in content
    "reply.context_turns=1",
    "pairs.held_out=0.5",
)


def main() -> None:
    """Train, measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("source", type=Path, help="generations.parquet of the release")
    arguments.add_argument("--store", type=Path, required=True, help="folder for all tables and checkpoints")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    arguments.add_argument("--prompts", type=int, default=240, help="of the release, with all replies to them")
    arguments.add_argument("--max-tokens", type=int, default=232, help="of prompt and reply; longer ones are skipped")
    arguments.add_argument("--steps", type=int, default=40, help="of two pairs")
    arguments.add_argument("--learning-rate", type=float, default=2e-4)
    arguments.add_argument("--last-layers", type=int, default=8, help="blocks that have an adapter")
    arguments.add_argument("--threads", type=int, default=2)
    given = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    report, store = Report(given.json), Store(given.store)
    policy = f"{{engine: transformers, model: {EMBEDDED.model}, dtype: float32, threads: {given.threads}}}"
    training = {
        "batch": 2,
        "accumulate": 1,
        "max_steps": given.steps,
        "learning_rate": given.learning_rate,
        "warmup_steps": 2,
        "checkpoint_steps": 10,
        "lora": f"{{last_layers: {given.last_layers}}}",
    }
    source = f"{{path: {given.source.resolve()}, holds: replies, limit: {given.prompts}}}"
    prepared = stages_for(
        "persodpo",
        profile="replay",
        assignments=[
            *SETTINGS,
            f"source={source}",
            f"log_probs.max_tokens={given.max_tokens}",
            f"models.policy={policy}",
            f"train={{{', '.join(f'{name}: {value}' for name, value in training.items())}}}",
        ],
        store=store,
    )
    pairs = next(stage for stage in stages_of(*prepared.ends) if stage.name == "pairs")
    lines, scored = [], []
    for seed in given.seeds:
        report.note(f"seed {seed}")
        tables = made("persodpo", list(_ends(prepared, pairs, seed)), store)
        lines.append(_line(seed, tables, store))
        base, tuned = (store.scan(tables[f"log_probs_{name}"].ref).collect() for name in ("base", "persodpo"))
        scored.append(scores(tuned, base, beta=prepared.config.train.beta))  # type: ignore[attr-defined]  # settings of persodpo
    report.add("Each seed: held-out pairs, 95 % intervals by bootstrap over prompts", lines)
    report.add("All seeds: mean over seeds", [_over_seeds(name, scored) for name in MEASURES])
    report.end()


def _ends(prepared: Prepared, pairs: Stage, seed: int) -> tuple[Stage, ...]:
    """Return the last stages of the training with a seed."""
    config = prepared.config
    train = config.train.model_copy(update={"seed": seed})  # type: ignore[attr-defined]  # settings of persodpo
    return trained(pairs, None, config.model_copy(update={"train": train})).ends  # type: ignore[arg-type]  # settings of persodpo


def _line(seed: int, tables: dict[str, Manifest], store: Store) -> dict[str, object]:
    """Return what a seed came to."""
    curve = store.scan(tables["train"].ref).collect()
    figures = store.scan(tables["dpo_figures"].ref).collect()
    line: dict[str, object] = {
        "seed": seed,
        "trained_on": int(tables["train"].parts[0].metrics["pairs"]),
        "steps": curve.height,
        "tokens": curve["tokens"].max(),
        "seconds": curve["seconds"].sum(),
        "first_loss": curve["unweighted_loss"][0],
    }
    for name, metric in MEASURES.items():
        row = figures.row(by_predicate=pl.col("metric") == metric, named=True)
        line |= {name: row["value"], f"{name}_low": row["low"], f"{name}_high": row["high"], "held_out": row["rows"]}
    return line


def _over_seeds(name: str, scored: list[pl.DataFrame]) -> dict[str, object]:
    """Return the mean over seeds: its interval by prompts (each pair's mean over seeds) and by seeds (Student's t)."""
    by_pair = pl.concat(scored).group_by("pair_id", maintain_order=True).agg(pl.col(name).mean(), pl.first("dialogue"))
    prompts = mean_over_groups(by_pair, name)
    by_seed = [mean(one[name]) for one in scored]
    line: dict[str, object] = {
        "figure": name,
        "at_start": START[name],
        "mean": prompts.value,
        "low": prompts.low,
        "high": prompts.high,
        "prompts": by_pair["dialogue"].n_unique(),
    }
    if len(by_seed) > 1:
        half = student.ppf(0.975, len(by_seed) - 1) * stdev(by_seed) / len(by_seed) ** 0.5
        line |= {"seeds_low": mean(by_seed) - half, "seeds_high": mean(by_seed) + half}
    return line


if __name__ == "__main__":
    main()
