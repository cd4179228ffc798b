"""Draw new prompts for sparse labels until each has its quota or has spent its budget of draws."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

import polars as pl
from pydantic import Field

from normloom.core.compared import Compared
from normloom.core.fan_out import free
from normloom.core.models.protocol import GenerateRequest, LanguageModel, Sampling
from normloom.core.rows.ids import seed
from normloom.core.rows.text import text_problem
from normloom.core.stage import Output, dropped, dropped_frame, quarantined_frame, unanswered
from normloom.near_duplicates.features import Features
from normloom.schemas import tables
from normloom.schemas.taxonomy import Label, Taxonomy
from normloom.schemas.template import Template, sections, template_named
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.prompts.dialogue import alone

if TYPE_CHECKING:
    import numpy as np

_DECORATION = re.compile(r"^\s*(?:prompt\s*:|[-*•]|\d+[.)])\s*", re.IGNORECASE)
NEAR = "near_duplicate"
EXPANDS = sections(("instruction", "prompt"))  # of a template that draws prompts

_QUOTES = "\"'“”‘’ "


class GapSearch(Args):
    """What a sparse label gets: a quota of new prompts, and examples of those it has."""

    quota: int = Field(100, ge=1, description="new prompts for each sparse label")
    examples: int = Field(3, ge=0, description="prompts of the label that the model is shown")


class Drafting(Args):
    """How drafts are drawn, and which are refused for what they are."""

    template: Annotated[Template, EXPANDS] = template_named("expand")
    sampling: Sampling = Sampling(max_tokens=64)
    draws_per_prompt: float = Field(1.5, ge=1, description="drafts drawn for each new prompt, at most")
    min_words: int = Field(4, ge=1, description="shorter drafts are rejected")
    max_chars: int = Field(2000, ge=1, description="longer drafts are rejected")
    part_rows: int = Field(4, ge=1, exclude=True, description="labels in one part")


@step(
    makes=tables.GAPS,
    name="gaps",
    reads=("history", "prompt", "labels"),
    bound=bounds.sparse_labels,
    fan_out=free("one row for each sparse label"),
)
def find_sparse(rows: pl.DataFrame, args: GapSearch, *, taxonomies: tuple[Taxonomy, ...], minimum: int) -> Output:
    """Return one row for each label with fewer than `minimum` prompts; its parents are the prompts shown as examples.

    Prompts that stand alone are shown before the last turns of conversations.
    """
    having = _having(rows, args.examples)
    gaps = []
    for taxonomy in taxonomies:
        for label in taxonomy.labels:
            count, parents, examples = having.get(label.id, (0, [], []))
            if count < minimum:
                gaps.append(
                    {
                        "parents": parents,
                        "content": label.id,
                        "dimension": taxonomy.dimension,
                        "label": label.id,
                        "prompts": count,
                        "quota": args.quota,
                        "examples": examples,
                    }
                )
    schema = tables.named_by_content(tables.GAPS)
    return Output(rows=pl.DataFrame(gaps, schema=schema))


def _having(rows: pl.DataFrame, examples: int) -> dict[str, tuple[int, list[str], list[str]]]:
    """Return how many prompts each label has, and the ids and texts of the first of them that may be shown."""
    numbered = rows.select("row_id", "prompt", "labels", _later=~alone(rows)).with_row_index("_at")
    labelled = numbered.select("_at", "_later", label=pl.col("labels").list.eval(pl.element().struct.field("label")))
    found = (
        labelled.explode("label")
        .drop_nulls("label")
        .group_by("label")
        .agg(pl.len(), first=pl.struct("_later", "_at").bottom_k(examples).sort().struct.field("_at"))
    )
    return {
        label: (count, *(numbered[name].gather(first).to_list() for name in ("row_id", "prompt")))
        for label, count, first in found.iter_rows()
    }


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


def _may_lose(made: pl.DataFrame, lost: pl.DataFrame, new: pl.DataFrame, given: Mapping[str, Any]) -> bool:
    """Return whether a draft that was kept or refused is near one of the prompts that are new."""
    import numpy as np

    from normloom.near_duplicates.simhash import fingerprints, pack

    near = lost.filter(reason=NEAR)["payload"].str.json_path_match("$.prompt")
    drafts = fingerprints(pack(pl.concat([made["prompt"], near])), given["features"])
    codes = _codes(new.filter(alone(new))["prompt"], given["features"])  # the same ones for every part
    fewer, more = sorted((drafts, codes), key=len)
    return any(bool((np.bitwise_count(more ^ code) < given["tau"]).any()) for code in fewer)


@step(
    makes=tables.LABELLED,
    reads=("dimension", "label", "quota", "examples"),
    compares=Compared(columns=("history", "prompt"), touches=_may_lose),
    bound=bounds.drafted,
    fan_out=free("drafts are drawn until the quota is met"),
    libraries=("numba", "numpy"),
)
def expand(
    rows: pl.DataFrame,
    args: Drafting,
    prompts: pl.DataFrame,
    model: LanguageModel,
    *,
    taxonomies: tuple[Taxonomy, ...],
    tau: int = 10,
    features: Features = Features(),
) -> Output:
    """Draw prompts for each gap, in rounds of as many as are still missing.

    A draft is refused if it is at a Hamming distance below `tau` of a prompt that stands alone, or of another draft.
    """
    from normloom.near_duplicates.near_codes import NearCodes
    from normloom.near_duplicates.simhash import fingerprints

    labels = {label.id: label for taxonomy in taxonomies for label in taxonomy.labels}
    compared = prompts.filter(alone(prompts))
    known = NearCodes(_codes(compared["prompt"], features), tau)
    draws = [_Draws(gap, budget=round(args.draws_per_prompt * gap["quota"])) for gap in rows.iter_rows(named=True)]
    refused: list[dict[str, str | None]] = []
    failed: list[dict[str, str | None]] = []
    tokens_in = tokens_out = 0
    while active := [state for state in draws if state.wanted]:
        requests = [_request(state, labels[state.gap["label"]], args) for state in active]
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
                if reason := _refusal(text, args):
                    refused.append(dropped(draft, reason))
                    continue
                [code] = fingerprints([text], features)
                if (near := known.nearest(code)) is not None:
                    winner = compared["row_id"][near] if near < compared.height else None  # drafts have no id yet
                    refused.append(dropped(draft, NEAR, winner=winner))
                    continue
                known.add(code)
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


def _request(state: _Draws, label: Label, args: Drafting) -> GenerateRequest:
    examples = "\n".join(f"- {example}" for example in state.gap["examples"])
    prompt = args.template.render("prompt", label=label.name, definition=label.definition, examples=examples)
    seeds = tuple(seed(state.gap["row_id"], state.drawn + draw) for draw in range(state.wanted))
    return GenerateRequest(
        instruction=args.template.render("instruction"), prompt=prompt, seeds=seeds, sampling=args.sampling
    )


def _cleaned(text: str) -> str:
    """Return the first paragraph of a completion without bullets, numbers and quotes around it."""
    paragraph = next((line for line in text.strip().split("\n") if line.strip()), "")
    return _DECORATION.sub("", paragraph).strip(_QUOTES)


def _refusal(text: str, args: Drafting) -> str | None:
    problem = text_problem(text, max_chars=args.max_chars)
    if problem:
        return problem[0]
    return "too_short" if len(text.split()) < args.min_words else None


def _codes(prompts: pl.Series, features: Features) -> np.ndarray:
    """Return the codes of the prompts that all parts of a stage are compared with: made once in a process."""
    return _codes_of(_Prompts(prompts), features)


@dataclass(frozen=True, eq=False)
class _Prompts:
    """Prompts that are compared as a whole, and not held as strings."""

    texts: pl.Series

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Prompts) and self.texts.equals(other.texts)

    def __hash__(self) -> int:
        return len(self.texts)


@lru_cache(maxsize=1)
def _codes_of(prompts: _Prompts, features: Features) -> np.ndarray:
    from normloom.near_duplicates.simhash import fingerprints, pack

    return fingerprints(pack(prompts.texts), features)


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
