"""Draw new prompts for sparse labels until each has its quota or has spent its budget of draws."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from normloom.features import Features
from normloom.models.protocol import GenerateRequest, LanguageModel, ModelSpec, Sampling
from normloom.rows import seed
from normloom.schemas import tables
from normloom.schemas.taxonomy import Label, Taxonomy
from normloom.schemas.template import Template
from normloom.stage import Output, Stage, dropped, dropped_frame, quarantined_frame, unanswered
from normloom.tasks import bounds
from normloom.tasks.dialogue import alone
from normloom.text import text_problem

if TYPE_CHECKING:
    import numpy as np

_DECORATION = re.compile(r"^\s*(?:prompt\s*:|[-*•]|\d+[.)])\s*", re.IGNORECASE)
_QUOTES = "\"'“”‘’ "


class GapSearch(BaseModel):
    """A label with fewer than `minimum` prompts gets a quota of new ones; `examples` of its prompts are shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    taxonomies: tuple[Taxonomy, ...]
    minimum: int = Field(100, ge=0)
    quota: int = Field(100, ge=1)
    examples: int = Field(3, ge=0)


class Expansion(BaseModel):
    """How drafts are drawn and which are refused: at Hamming distance below `tau` to any prompt that stands alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    taxonomies: tuple[Taxonomy, ...]
    template: Template
    sampling: Sampling = Sampling(max_tokens=64)
    draws_per_prompt: float = Field(1.5, ge=1, description="budget of draws for each prompt of the quota")
    tau: int = Field(10, ge=1, le=17)
    features: Features = Features()
    min_words: int = Field(4, ge=1)
    max_chars: int = Field(2000, ge=1)


def find_gaps(rows: pl.DataFrame, arguments: GapSearch) -> Output:
    """Return one row for each sparse label; the rows' parents are the prompts shown as examples.

    Prompts that stand alone are shown before the last turns of conversations.
    """
    having: dict[str, list[tuple[str, str]]] = {}
    shown_first = rows.sort(~alone(rows), maintain_order=True)
    for row_id, prompt, labels in shown_first.select("row_id", "prompt", "labels").iter_rows():
        for label in labels:
            having.setdefault(label["label"], []).append((row_id, prompt))
    gaps = []
    for taxonomy in arguments.taxonomies:
        for label in taxonomy.labels:
            prompts = having.get(label.id, [])
            if len(prompts) < arguments.minimum:
                shown = prompts[: arguments.examples]
                gaps.append(
                    {
                        "parents": [row_id for row_id, _ in shown],
                        "content": label.id,
                        "dimension": taxonomy.dimension,
                        "label": label.id,
                        "prompts": len(prompts),
                        "quota": arguments.quota,
                        "examples": [prompt for _, prompt in shown],
                    }
                )
    schema = tables.named_by_content(tables.GAPS)
    return Output(rows=pl.DataFrame(gaps, schema=schema), attempts=len(gaps))


@dataclass
class _Draws:
    """The state of one label's draws."""

    gap: dict[str, Any]
    budget: int
    made: list[dict[str, object]] = field(default_factory=list)
    drawn: int = 0

    @property
    def wanted(self) -> int:
        """How many draws the next round makes."""
        missing: int = self.gap["quota"] - len(self.made)
        return max(min(missing, self.budget - self.drawn), 0)


def draft_prompts(rows: pl.DataFrame, arguments: Expansion, prompts: pl.DataFrame, model: LanguageModel) -> Output:
    """Draw prompts for each gap, in rounds of as many as are still missing."""
    import numpy as np

    from normloom.simhash import fingerprints

    labels = {label.id: label for taxonomy in arguments.taxonomies for label in taxonomy.labels}
    compared = prompts.filter(alone(prompts))
    known = fingerprints(compared["prompt"].to_list(), arguments.features)
    known_ids = compared["row_id"].to_list()
    draws = [_Draws(gap, budget=round(arguments.draws_per_prompt * gap["quota"])) for gap in rows.iter_rows(named=True)]
    refused: list[dict[str, str | None]] = []
    failed: list[dict[str, str | None]] = []
    tokens_in = tokens_out = 0
    while active := [state for state in draws if state.wanted]:
        requests = [_request(state, labels[state.gap["label"]], arguments) for state in active]
        for state, completion in zip(active, model.generate(requests), strict=True):
            state.drawn += max(len(completion.candidates), 1)
            tokens_in += completion.tokens_in
            if completion.error is not None:
                failed.append(unanswered(state.gap, completion))
                state.budget = state.drawn
            for candidate in completion.candidates:
                tokens_out += candidate.tokens_out
                text = _cleaned(candidate.text)
                draft = {
                    "row_id": state.gap["row_id"],
                    "label": state.gap["label"],
                    "prompt": text,
                    "seed": candidate.seed,
                    "tokens_out": candidate.tokens_out,
                }
                if reason := _refusal(text, arguments):
                    refused.append(dropped(draft, reason))
                    continue
                code = fingerprints([text], arguments.features)
                if (near := _nearest(known, code, arguments.tau)) is not None:
                    refused.append(dropped(draft, "near_duplicate", winner=known_ids[near]))
                    continue
                known = np.concatenate([known, code])
                known_ids.append(None)  # a draft has no id before the part is made
                state.made.append(_draft_row(state, draft))
    made = [row for state in draws for row in state.made]
    return Output(
        rows=pl.DataFrame(made, schema={"row_id": pl.String, **tables.LABELLED.columns}),
        dropped=dropped_frame(refused),
        quarantined=quarantined_frame(failed),
        attempts=sum(state.drawn for state in draws),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        metrics={"labels_short": sum(len(state.made) < state.gap["quota"] for state in draws)},
    )


def _request(state: _Draws, label: Label, arguments: Expansion) -> GenerateRequest:
    examples = "\n".join(f"- {example}" for example in state.gap["examples"])
    prompt = arguments.template.render("prompt", label=label.name, definition=label.definition, examples=examples)
    seeds = tuple(seed(state.gap["row_id"], state.drawn + draw) for draw in range(state.wanted))
    return GenerateRequest(
        instruction=arguments.template.render("instruction"), prompt=prompt, seeds=seeds, sampling=arguments.sampling
    )


def _cleaned(text: str) -> str:
    """Return the first paragraph of a completion without bullets, numbers and quotes around it."""
    paragraph = next((line for line in text.strip().split("\n") if line.strip()), "")
    return _DECORATION.sub("", paragraph).strip(_QUOTES)


def _refusal(text: str, arguments: Expansion) -> str | None:
    problem = text_problem(text, max_chars=arguments.max_chars)
    if problem:
        return problem[0]
    return "too_short" if len(text.split()) < arguments.min_words else None


def _nearest(known: np.ndarray, code: np.ndarray, tau: int) -> int | None:
    import numpy as np

    if not len(known):
        return None
    distances = np.bitwise_count(known ^ code)
    nearest = int(np.argmin(distances))
    return nearest if distances[nearest] < tau else None


def _draft_row(state: _Draws, draft: dict[str, object]) -> dict[str, object]:
    label = {"dimension": state.gap["dimension"], "label": state.gap["label"], "probability": None}
    return {
        "row_id": draft["row_id"],
        "prompt": draft["prompt"],
        "origin": "expansion",
        "reference": None,
        "seed": draft["seed"],
        "tokens_out": draft["tokens_out"],
        "labels": [label],
        "probabilities": [],
    }


def find_sparse(labelled: Stage, *, arguments: GapSearch, name: str = "gaps") -> Stage:
    """Return the stage that finds the sparse labels."""
    return Stage(
        name=name,
        function=find_gaps,
        bound=bounds.sparse_labels,
        arguments=arguments,
        contract=tables.GAPS,
        inputs=(labelled,),
    )


def expand(
    gaps: Stage, labelled: Stage, *, arguments: Expansion, model: ModelSpec, part_rows: int | None, name: str = "expand"
) -> Stage:
    """Return the stage that draws prompts for sparse labels."""
    return Stage(
        name=name,
        function=draft_prompts,
        bound=bounds.drafted,
        arguments=arguments,
        contract=tables.LABELLED,
        inputs=(gaps,),
        sides=(labelled,),
        model=model,
        part_rows=part_rows,
    )
