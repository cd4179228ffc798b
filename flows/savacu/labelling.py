"""Labelling prompts by the route that a build's settings choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import polars as pl

from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Stage
from normloom.flows.savacu.config import ClassifySettings
from normloom.readers import locate
from normloom.schemas.prompts import CALIBRATE
from normloom.schemas.taxonomy import Taxonomy
from normloom.tasks.prompts.classify import (
    calibrate,
    classify,
    embed,
    score_labels,
    score_labels_by_embedding,
    shortlist_by_code,
    shortlist_by_embedding,
)
from normloom.tasks.prompts.ingest import Prompts, ingest


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


def label(prompts: Stage, config: LabellingConfig, *, carried: Mapping[str, pl.DataType] | None = None) -> Stage:
    """Return the stage that labels prompts by the route that is configured; `carried` are further columns of theirs."""
    models, settings, taxonomies = config.models, config.classify, config.labels
    if settings.route == "embedding":
        fitted = calibrate(_known(taxonomies), models.embedder, taxonomies=taxonomies)
        embedded = embed(prompts, settings, models.embedder)
        scores = score_labels_by_embedding(embedded, fitted, taxonomies=taxonomies)
    else:
        if settings.route == "shortlist":
            prompts = _carrying(_shortlisted(prompts, config), carried)
        scores = score_labels(prompts, settings, models.classifier, taxonomies=taxonomies)
    return _carrying(classify(prompts, settings, scores, taxonomies=taxonomies), carried)


def _shortlisted(prompts: Stage, config: LabellingConfig) -> Stage:
    """Return the stage that picks the labels to ask about, by codes or by embedding."""
    if config.classify.shortlist_by == "codes":
        return shortlist_by_code(prompts, config.classify, config.models.classifier, taxonomies=config.labels)
    return shortlist_by_embedding(prompts, config.classify, config.models.embedder, taxonomies=config.labels)


def _known(taxonomies: tuple[Taxonomy, ...]) -> Stage:
    """Return the stage that reads the prompts on which labels by embedding are calibrated."""
    prompts = Prompts(references={taxonomy.dimension: taxonomy.dimension for taxonomy in taxonomies}, keep=())
    return ingest(prompts, source=locate(CALIBRATE), taxonomies=taxonomies, name="ingest_calibration")


def _carrying(stage: Stage, columns: Mapping[str, pl.DataType] | None) -> Stage:
    """Return the stage with further columns in its contract: the functions that label hand them on as they are."""
    if not columns:
        return stage
    contract = stage.contract
    wider = replace(contract, columns={**columns, **contract.columns}, nullable=contract.nullable | frozenset(columns))
    return replace(stage, contract=wider)
