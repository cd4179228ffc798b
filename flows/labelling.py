"""Labelling prompts by the route that a build's settings choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import polars as pl

from normloom.flows.savacu_config import ClassifySettings
from normloom.models.protocol import ModelSpec
from normloom.schemas.prompts import CALIBRATE
from normloom.schemas.taxonomy import Taxonomy
from normloom.schemas.template import Template
from normloom.stage import Stage
from normloom.tasks.classify import (
    Asking,
    Labelling,
    Labels,
    Ranking,
    calibrate,
    classify,
    embed,
    score_labels,
    score_labels_by_embedding,
    shortlist,
)
from normloom.tasks.ingest import ingest, ingestion


class LabellingModels(Protocol):
    """The models that label."""

    @property
    def embedder(self) -> ModelSpec:
        """The model of the routes by embedding."""

    @property
    def classifier(self) -> ModelSpec:
        """The model that is asked about labels."""


class LabellingConfig(Protocol):
    """What the settings of a build that labels have in common."""

    @property
    def models(self) -> LabellingModels:
        """The model of each role."""

    @property
    def classify(self) -> ClassifySettings:
        """How prompts are labelled."""

    @property
    def labels(self) -> tuple[Taxonomy, ...]:
        """The taxonomies."""

    def template(self, name: str) -> Template:
        """Return the template of this name."""


def label(prompts: Stage, config: LabellingConfig, *, carried: Mapping[str, pl.DataType] | None = None) -> Stage:
    """Return the stage that labels prompts by the route that is configured; `carried` are further columns of theirs."""
    models, settings = config.models, config.classify
    if settings.route == "embedding":
        labels = Labels(taxonomies=config.labels)
        fitted = calibrate(_known(config.labels), arguments=labels, model=models.embedder)
        embedded = embed(prompts, model=models.embedder, part_rows=settings.part_rows)
        scores = score_labels_by_embedding(embedded, fitted, arguments=labels)
    else:
        if settings.route == "shortlist":
            prompts = _carrying(_shortlisted(prompts, config), carried)
        asking = Asking(taxonomies=config.labels, template=config.template("classify"))
        scores = score_labels(prompts, arguments=asking, model=models.classifier, part_rows=settings.part_rows)
    labelling = Labelling(taxonomies=config.labels, delta=settings.delta)
    return _carrying(classify(prompts, scores, arguments=labelling), carried)


def _shortlisted(prompts: Stage, config: LabellingConfig) -> Stage:
    """Return the stage that picks the labels to ask about, by codes or by embedding."""
    models, settings = config.models, config.classify
    by_codes = settings.shortlist_by == "codes"
    template = config.template("rank") if by_codes else None
    ranking = Ranking(taxonomies=config.labels, k=settings.shortlist, template=template)
    ranker = models.classifier if by_codes else models.embedder
    return shortlist(prompts, arguments=ranking, model=ranker, part_rows=settings.part_rows)


def _known(taxonomies: tuple[Taxonomy, ...]) -> Stage:
    """Return the stage that reads the prompts on which labels by embedding are calibrated."""
    references = {taxonomy.dimension: taxonomy.dimension for taxonomy in taxonomies}
    arguments = ingestion(CALIBRATE, text_column="prompt", references=references, taxonomies=taxonomies)
    return ingest(arguments, name="ingest_calibration")


def _carrying(stage: Stage, columns: Mapping[str, pl.DataType] | None) -> Stage:
    """Return the stage with further columns in its contract: the functions that label hand them on as they are."""
    if not columns:
        return stage
    contract = stage.contract
    wider = replace(contract, columns={**columns, **contract.columns}, nullable=contract.nullable | frozenset(columns))
    return replace(stage, contract=wider)
