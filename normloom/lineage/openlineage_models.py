"""Models as OpenLineage datasets: those that a stage loads or is handed, and the facet of those that it trained.

A model from a directory is named as files are, one of the hub by `hf://models` and its id, one at an endpoint by the
endpoint's address and its name there, any other by its engine and name. A model out of a product is the dataset of
that product's table; its base is a dataset of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

import attr
from openlineage.client.event_v2 import InputDataset
from openlineage.client.facet_v2 import DatasetFacet, dataset_version_dataset

from normloom.core.errors import ModelError
from normloom.core.models.product_model import ProductFiles, ProductSpec
from normloom.core.models.protocol import ModelSpec
from normloom.lineage.training import TrainingRecord
from normloom.models.files.locate import find
from normloom.models.identity import model_identity
from normloom.models.registry import engine_of

HUB_MODELS = "hf://models"
FACETS = "urn:normloom:facets:1-0-0"


@attr.define(kw_only=True)
class NormloomModelDatasetFacet(DatasetFacet):
    """A model that a stage reads: engine, number format, and what tells its weights from others of its name."""

    model: str
    engine: str
    dtype: str | None
    revision: str | None
    digest: str | None

    @staticmethod
    def _get_schema() -> str:
        return f"{FACETS}:NormloomModelDatasetFacet.json#/$defs/NormloomModelDatasetFacet"


@attr.define(kw_only=True)
class NormloomTrainedModelDatasetFacet(DatasetFacet):
    """A product that is a trained model: its files, bases, the rows it learned from, and the settings."""

    product: str
    files: int
    bytes: int
    bases: list[str]
    learnedFrom: dict[str, int]  # noqa: N815  # OpenLineage writes fields so
    settings: dict[str, object]

    @staticmethod
    def _get_schema() -> str:
        return f"{FACETS}:NormloomTrainedModelDatasetFacet.json#/$defs/NormloomTrainedModelDatasetFacet"


def trained_facet(found: TrainingRecord) -> NormloomTrainedModelDatasetFacet:
    """Return how a product was trained as a facet of its dataset."""
    return NormloomTrainedModelDatasetFacet(
        product=found.product,
        files=found.files,
        bytes=found.bytes,
        bases=found.base_names,
        learnedFrom=dict(found.learned_from),
        settings=dict(found.settings),
    )


def model_datasets(specs: Sequence[ModelSpec]) -> list[InputDataset]:
    """Return the models that a stage reads, each once; those out of products by their bases only."""
    found = {(one.namespace, one.name): one for one in map(_dataset, _plain(specs))}
    return list(found.values())


def _plain(specs: Sequence[ModelSpec]) -> Iterator[ModelSpec]:
    for spec in specs:
        if not isinstance(spec, ProductSpec):
            yield spec
        elif spec.adapter and not isinstance(spec, ProductFiles):
            yield spec.plain


def _dataset(spec: ModelSpec) -> InputDataset:
    identity = model_identity(spec)
    namespace, name = _named(spec)
    version = identity.get("weights") or identity.get("revision")
    facets: dict[str, DatasetFacet] = {"normloom_model": _facet(spec, identity)}
    if version:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(version)
    return InputDataset(namespace=namespace, name=name, facets=facets)


def _facet(spec: ModelSpec, identity: Mapping[str, str]) -> NormloomModelDatasetFacet:
    return NormloomModelDatasetFacet(
        model=spec.model,
        engine=identity["engine"],
        dtype=identity.get("dtype"),
        revision=identity.get("revision") or None,
        digest=identity.get("weights"),
    )


def _named(spec: ModelSpec) -> tuple[str, str]:
    """Return namespace and name of a model's dataset."""
    engine = engine_of(spec)
    if engine.remote and isinstance(address := spec.options.get("base_url"), str):
        parts = urlsplit(address)
        return f"{parts.scheme}://{parts.netloc}", spec.model
    if not engine.files:
        return spec.engine, spec.model
    try:
        found = find(spec.model)
    except ModelError:  # it is on the nodes of the cluster, not here
        return "file", spec.model
    return ("file", str(found.absolute())) if found else (HUB_MODELS, spec.model)
