"""Manifests, and the sources of a user, as OpenLineage datasets and facets: the published ones, and some of our own.

Datasets are named as OpenLineage names local files: namespace `file`, and the path of the stage in the store; the key
of a table is the dataset's version. A source is a file, folder or pattern in namespace `file`, or what a URL names, in
the namespace of its protocol and host; the digest of its content is the version. The JSON schemas of our own facets lie
in `docs/openlineage`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import attr
import polars as pl
from openlineage.client.event_v2 import InputDataset, OutputDataset
from openlineage.client.facet_v2 import (
    DatasetFacet,
    RunFacet,
    data_quality_assertions_dataset,
    dataset_version_dataset,
    datasource_dataset,
    output_statistics_output_dataset,
    schema_dataset,
    set_producer,
    test_run,
)

from normloom.core.table import CheckResult, Manifest
from normloom.lineage.openlineage_models import FACETS, trained_facet
from normloom.lineage.training import training_of
from normloom.readers.locate import Located
from normloom.readers.remote.fetch import is_remote, shown
from normloom.store.store import Store

PRODUCER = f"pkg:generic/normloom@{metadata.version('normloom')}"
HUB = "hf://datasets/"

set_producer(PRODUCER)  # facets take it from the client


@attr.define(kw_only=True)
class NormloomModelRunFacet(RunFacet):
    """The model a table was made with and what it took; digest and revision if the engine has them."""

    model: str
    engine: str
    revision: str | None
    digest: str | None
    tokensIn: int  # noqa: N815  # OpenLineage writes fields so
    tokensOut: int  # noqa: N815
    loadSeconds: float  # noqa: N815
    seconds: float

    @staticmethod
    def _get_schema() -> str:
        return f"{FACETS}:NormloomModelRunFacet.json#/$defs/NormloomModelRunFacet"


@attr.define(kw_only=True)
class NormloomRowsRunFacet(RunFacet):
    """The account of a table's rows, and whether this run made it or found it made by `build`."""

    key: str
    content: str
    build: str
    reused: bool
    parts: int
    rowsIn: int  # noqa: N815
    attempts: int
    rowsOut: int  # noqa: N815
    dropped: dict[str, int]
    quarantined: dict[str, int]

    @staticmethod
    def _get_schema() -> str:
        return f"{FACETS}:NormloomRowsRunFacet.json#/$defs/NormloomRowsRunFacet"


@attr.define(kw_only=True)
class NormloomPrefectRunFacet(RunFacet):
    """The runs in Prefect: the flow run of the build, and the task run of a stage."""

    flowRunId: str  # noqa: N815  # OpenLineage writes fields so
    taskRunId: str | None  # noqa: N815  # as above

    @staticmethod
    def _get_schema() -> str:
        return f"{FACETS}:NormloomPrefectRunFacet.json#/$defs/NormloomPrefectRunFacet"


def sources_of(given: Mapping[str, Any]) -> list[Located]:
    """Return the sources among what a stage is given."""
    return [value for value in given.values() if isinstance(value, Located)]


def source_dataset(source: Located) -> InputDataset:
    """Return a source as a dataset, without what may be a secret in its URL."""
    if is_remote(source.name):
        named = source.name if "://" in source.name else f"{HUB}{source.name}"
        parts = urlsplit(shown(named))
        namespace, name = f"{parts.scheme}://{parts.netloc}", parts.path.strip("/") or "/"
        uri = f"{namespace}/{quote(name)}"
    else:
        path = Path(source.name).absolute()
        namespace, name, uri = "file", str(path), path.as_uri()
    return InputDataset(
        namespace=namespace,
        name=name,
        facets={
            "dataSource": datasource_dataset.DatasourceDatasetFacet(name=namespace, uri=uri),
            "version": dataset_version_dataset.DatasetVersionDatasetFacet(source.digest),
        },
    )


def input_dataset(store: Store, manifest: Manifest) -> InputDataset:
    """Return a table that a stage reads, with the checks that were made of it: OpenLineage has them with inputs."""
    assertions = [
        data_quality_assertions_dataset.Assertion(
            assertion=check["expectation"],
            success=result.passed,
            column=check["arguments"].get("column"),
            severity=_severity(result),
            name=result.name,
            actual=result.detail,
            params=check["arguments"],
        )
        for check, result in _checks(manifest)
    ]
    facet = data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet(assertions)
    return InputDataset(
        **_identity(store, manifest),
        facets=_dataset_facets(store, manifest),
        inputFacets={"dataQualityAssertions": facet} if assertions else {},
    )


def output_dataset(store: Store, manifest: Manifest, *, reused: bool) -> OutputDataset:
    """Return the table of a stage; what was written to it stays out if nothing was."""
    files = [part.files["rows"] for part in manifest.parts]
    written = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=manifest.count("rows"), size=sum(file.bytes for file in files), fileCount=len(files)
    )
    return OutputDataset(
        **_identity(store, manifest),
        facets=_dataset_facets(store, manifest),
        outputFacets={} if reused else {"outputStatistics": written},
    )


def run_facets(manifest: Manifest, *, reused: bool) -> dict[str, RunFacet]:
    """Return the account of rows, the model if there is one, and the checks that this run made."""
    facets: dict[str, RunFacet] = {
        "normloom_rows": NormloomRowsRunFacet(
            key=manifest.key,
            content=manifest.content,
            build=manifest.build,
            reused=reused,
            parts=len(manifest.parts),
            rowsIn=manifest.rows_in,
            attempts=manifest.attempts,
            rowsOut=manifest.count("rows"),
            dropped=manifest.dropped_by,
            quarantined=manifest.quarantined_by,
        )
    }
    model: Mapping[str, str] | None = manifest.key_fields["model"]
    if model:
        facets["normloom_model"] = NormloomModelRunFacet(
            model=model["model"],
            engine=model["engine"],
            revision=model.get("revision") or None,
            digest=model.get("weights"),
            tokensIn=manifest.tokens_in,
            tokensOut=manifest.tokens_out,
            loadSeconds=manifest.load_seconds,
            seconds=manifest.seconds,
        )
    if manifest.checks and not reused:
        facets["test"] = test_run.TestRunFacet(
            [
                test_run.TestExecution(
                    name=result.name,
                    status="pass" if result.passed else "fail",
                    severity=_severity(result),
                    type=check["expectation"],
                    actual=result.detail,
                    params=check["arguments"],
                )
                for check, result in _checks(manifest)
            ]
        )
    return facets


def schema_fields(schema: Mapping[str, pl.DataType]) -> list[schema_dataset.SchemaDatasetFacetFields]:
    """Return the columns of a table, with the fields of structs and the element of lists below them."""
    return [_field(name, dtype, position) for position, (name, dtype) in enumerate(schema.items(), start=1)]


def _field(
    name: str, dtype: pl.DataType | pl.datatypes.DataTypeClass, position: int | None = None
) -> schema_dataset.SchemaDatasetFacetFields:
    kind, inner = str(dtype).lower(), list[schema_dataset.SchemaDatasetFacetFields]()
    if isinstance(dtype, pl.Struct):
        kind = "struct"
        inner = [_field(field.name, field.dtype, index) for index, field in enumerate(dtype.fields, start=1)]
    elif isinstance(dtype, pl.List | pl.Array):
        kind, inner = "array", [_field("_element", dtype.inner)]
    return schema_dataset.SchemaDatasetFacetFields(
        name=name, type=kind, ordinal_position=position, fields=inner or None
    )


def _identity(store: Store, manifest: Manifest) -> dict[str, str]:
    return {"namespace": "file", "name": str(store.root / manifest.system / manifest.stage)}


def _dataset_facets(store: Store, manifest: Manifest) -> dict[str, DatasetFacet]:
    path, _ = manifest.files(store.table_directory(manifest.ref))[0]
    schema = pl.scan_parquet([path], glob=False).collect_schema()
    trained = training_of(store, manifest)
    return {
        **({"normloom_trained_model": trained_facet(trained)} if trained else {}),
        "schema": schema_dataset.SchemaDatasetFacet(schema_fields(schema)),
        "dataSource": datasource_dataset.DatasourceDatasetFacet(name="file", uri=store.root.as_uri()),
        "version": dataset_version_dataset.DatasetVersionDatasetFacet(manifest.key),
    }


def _checks(manifest: Manifest) -> Iterator[tuple[Mapping[str, Any], CheckResult]]:
    """Yield each check as the contract has it, with its result."""
    return zip(manifest.key_fields["contract"]["checks"], manifest.checks, strict=True)


def _severity(result: CheckResult) -> str:
    return {"stop": "error"}.get(result.on_fail, result.on_fail)
