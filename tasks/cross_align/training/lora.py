"""LoRA on a model by id, in place of a frozen encoder: an adapter for each task and variant, and their vectors."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from normloom.core.errors import StageError
from normloom.core.fan_out import free
from normloom.core.models.needs import Needs
from normloom.core.models.product_model import ProductFiles
from normloom.core.models.protocol import ModelSpec
from normloom.core.run import Run
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.media import media_tables, meme_tables
from normloom.schemas.media.meme_tables import ENRICHED, PLAIN, VARIANTS
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.cross_align.training.adapter import file_name
from normloom.tasks.tuning.lora import ADAPTER, CONFIG, save_adapter

LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")
_TOLD = "curve.json"  # its being there says that the weights are whole


class Tuning(Args):
    """How the LoRA adapters are trained, for all variants alike."""

    rank: int = Field(8, ge=1, description="rank of each layer's update")
    scale: float = Field(16, gt=0, description="alpha of LoRA")
    modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj"), min_length=1, description="layers that have an update, by name"
    )
    alpha: float = Field(0.5, ge=0, description="weight of the contrastive loss next to the cross-entropy")
    temperature: float = Field(0.1, gt=0, description="temperature of the contrastive loss")
    epochs: int = Field(1, ge=1, description="passes over the hard pairs")
    max_steps: int | None = Field(None, ge=1, description="maximum number of steps; null: until the epochs are done")
    batch: int = Field(8, ge=1, description="anchors in a step, each with its positive and its negative")
    learning_rate: float = Field(2e-4, gt=0, description="learning rate of AdamW")
    tokens: int = Field(256, ge=8, description="tokens of a text; longer ones are cut")
    seed: int = Field(42, description="seed of the update and the order of the pairs")


@step(
    makes=meme_tables.TUNING_CURVE,
    files="lora",
    needs=Needs(threads=2),
    libraries=LIBRARIES,
    fan_out=free("one row for each task, variant and step"),
)
def tune(
    rows: pl.DataFrame, args: Tuning, texts: pl.DataFrame, pairs: pl.DataFrame, *, base: ModelSpec, run: Run
) -> Output:
    """Train a LoRA adapter of `base` for each task and variant on its hard pairs: PEFT's files, in a folder each.

    The vector of a text is the mean of the last layer over its tokens. The loss is that of the rank-r head: the
    cross-entropy of a linear layer, which is not kept, and the contrastive loss. What a killed run has finished is not
    trained again. Raises StageError for a loss that is not finite.
    """
    jobs = [(task, variant) for task in rows["task"].unique(maintain_order=True) for variant in VARIANTS]
    model = None
    curves: list[dict[str, Any]] = []
    for done, (task, variant) in enumerate(jobs, start=1):
        folder = run.scratch / _slug(task, variant)
        told = folder / _TOLD
        if not told.is_file():
            model = model or _Base(base, args.tokens)
            memes = rows.filter(task=task)
            curve = _trained(memes, texts, pairs.filter(task=task, variant=variant), args, model, folder)
            draft = told.with_suffix(".tmp")
            draft.write_text(json.dumps([{"task": task, "variant": variant, **one} for one in curve]), encoding="utf-8")
            os.replace(draft, told)  # noqa: PTH105  # whole or not there
        curves += json.loads(told.read_text(encoding="utf-8"))
        run.progress(done, len(jobs), loss=curves[-1]["loss"])
        own = run.files / folder.name
        own.mkdir()
        for name in (ADAPTER, CONFIG):
            shutil.copyfile(folder / name, own / name)
    made = pl.DataFrame(curves, schema=meme_tables.TUNING_CURVE.columns).with_columns(
        parents=pl.lit([], dtype=tables.TEXTS), content=pl.concat_str("task", "variant", "step", separator="\x1f")
    )
    return Output(rows=made, attempts=made.height)


@step(
    makes=media_tables.VECTORS,
    name="tuned_vectors",
    needs=Needs(threads=2),
    libraries=LIBRARIES,
    fan_out=free("one row for each text and variant"),
)
def encode_tuned(
    rows: pl.DataFrame, args: Tuning, items: pl.DataFrame, *, base: ModelSpec, tuned: ProductFiles
) -> Output:
    """Return the unit vector of each text by the adapter of its task and variant (`enriched` if it names none).

    A meme without facts has its plain text in every variant, each read by that variant's adapter.
    """
    import torch

    tasks = dict(items.select("meme_id", "task").iter_rows())
    asked: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in _asked(rows):
        asked.setdefault((tasks[row["meme_id"]], row["variant"]), []).append(row)
    model = _Base(base, args.tokens)
    made = []
    for (task, variant), some in asked.items():
        adapted = model.adapted(tuned.path / _slug(task, variant))
        for start in range(0, len(some), args.batch):
            batch = some[start : start + args.batch]
            with torch.inference_mode():
                vectors = model.vectors(adapted, [row["text"] for row in batch]).float().cpu()
            made += [
                {
                    "parents": [row["row_id"]],
                    "content": row["item_id"],
                    "item_id": row["item_id"],
                    "modality": "text",
                    "vector": vector,
                    "encoder": f"{base.model} with LoRA",
                }
                for row, vector in zip(batch, vectors.tolist(), strict=True)
            ]
        model.plain(adapted)
    frame = pl.DataFrame(made, schema=tables.named_by_content(media_tables.VECTORS))
    return Output(rows=frame, attempts=frame.height)


class _Base:
    """The model that adapters are put on, and its tokenizer."""

    def __init__(self, spec: ModelSpec, tokens: int) -> None:
        from transformers import AutoModel

        from normloom.models.loading import load, tokenizer_of

        own = spec.model_copy(update={"dtype": "float32"}) if spec.dtype == "auto" else spec
        self.model = load(AutoModel, own, threads=spec.threads)
        self.tokenizer = tokenizer_of(own)
        self.tokenizer.padding_side = "right"
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.tokens = min(tokens, int(self.tokenizer.model_max_length))
        self.name = spec.model

    def fresh(self, args: Tuning) -> Any:
        """Return the model with an untrained adapter."""
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=args.rank,
            lora_alpha=args.scale,
            target_modules=list(args.modules),
            task_type="FEATURE_EXTRACTION",
        )
        return get_peft_model(self.model, config)

    def adapted(self, folder: Path) -> Any:
        """Return the model with a trained adapter."""
        from peft import PeftModel

        return PeftModel.from_pretrained(self.model, folder).eval()

    def plain(self, adapted: Any) -> None:
        """Take the adapter off again."""
        self.model = adapted.unload()

    def vectors(self, model: Any, texts: Sequence[str]) -> Any:
        """Return the mean of the last layer over the tokens of each text as unit vectors, (texts, width) float32."""
        import torch

        given = self.tokenizer(
            list(texts), return_tensors="pt", padding=True, truncation=True, max_length=self.tokens
        ).to(self.model.device)
        states = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).last_hidden_state.float()
        mask = given["attention_mask"][..., None]
        mean = (states * mask).sum(1) / mask.sum(1).clamp_min(1)
        return torch.nn.functional.normalize(mean, dim=1)


def _trained(
    memes: pl.DataFrame, texts: pl.DataFrame, pairs: pl.DataFrame, args: Tuning, base: _Base, folder: Path
) -> list[dict[str, Any]]:
    import torch

    from normloom.tasks.cross_align.training.head import supervised_contrast

    variant = pairs["variant"][0]
    said = dict(texts.select("item_id", "text").iter_rows())
    label = dict(memes.select("meme_id", "label").iter_rows())
    triples = pairs.select("anchor", "positive", "negative").rows()
    classes = sorted({label[row[0]] for row in triples})
    curve: list[dict[str, Any]] = []
    with torch.random.fork_rng():
        torch.manual_seed(args.seed)
        model = base.fresh(args)
        model.train()
        head = torch.nn.Linear(base.model.config.get_text_config().hidden_size, len(classes)).to(base.model.device)
        learned = [weights for weights in (*model.parameters(), *head.parameters()) if weights.requires_grad]
        optimizer = torch.optim.AdamW(learned, lr=args.learning_rate)
        for batch in _batches(len(triples), args):
            names = sorted({name for place in batch for name in triples[place]})
            given = [said.get(f"{name}:{variant}") or said[f"{name}:{PLAIN}"] for name in names]
            labels = torch.tensor([classes.index(label[name]) for name in names], device=base.model.device)
            unit = base.vectors(model, given)
            contrast = supervised_contrast(unit, labels, temperature=args.temperature)
            loss = torch.nn.functional.cross_entropy(head(unit), labels) + args.alpha * contrast
            if not torch.isfinite(loss):
                raise StageError(f"the loss is {loss.item()} in step {len(curve) + 1}: lower tune.learning_rate")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            optimizer.step()
            curve.append({"step": len(curve) + 1, "loss": loss.item(), "contrast": contrast.item()})
    save_adapter(model, folder, base=base.name)
    base.plain(model)
    return curve


def _batches(count: int, args: Tuning) -> Iterator[list[int]]:
    """Yield the places of the pairs of each step."""
    import torch

    made = 0
    for _ in range(args.epochs):
        for batch in torch.split(torch.randperm(count), args.batch):
            if args.max_steps is not None and made >= args.max_steps:
                return
            made += 1
            yield batch.tolist()


def _asked(rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the texts with the variant whose adapter reads them."""
    if "variant" not in rows.columns:
        yield from rows.with_columns(variant=pl.lit(ENRICHED)).iter_rows(named=True)
        return
    having = set(rows.filter(pl.col("variant") != PLAIN)["meme_id"])
    for row in rows.iter_rows(named=True):
        yield row
        if row["meme_id"] not in having:
            for variant in VARIANTS:
                if variant != PLAIN:
                    yield {**row, "variant": variant, "item_id": f"{row['meme_id']}:{variant}"}


def _slug(task: str, variant: str) -> str:
    return file_name(task, variant).removesuffix(".safetensors")
