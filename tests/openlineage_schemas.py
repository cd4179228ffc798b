"""OpenLineage events against our own schema of them and, where OPENLINEAGE_SPEC says so, against the published ones.

`openlineage_event.schema.json` says in our words what the specification asks of the events we emit. OPENLINEAGE_SPEC
names the folder `spec` of a checkout of OpenLineage, or a directory with the files of the schemas.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError
from openlineage.client.facet_v2 import (
    BaseFacet,
    data_quality_assertions_dataset,
    dataset_version_dataset,
    datasource_dataset,
    error_message_run,
    job_type_job,
    output_statistics_output_dataset,
    parent_run,
    schema_dataset,
    tags_run,
    test_run,
)
from referencing import Registry, Resource

HERE = Path(__file__).parent
EVENT: dict[str, Any] = json.loads((HERE / "openlineage_event.schema.json").read_text(encoding="utf-8"))
OWN_FACETS = HERE.parent / "docs" / "openlineage"
# now, as tests take all OPENLINEAGE variables out of the environment
PUBLISHED = Path(os.environ["OPENLINEAGE_SPEC"]).resolve() if os.environ.get("OPENLINEAGE_SPEC") else None
PLACES = (  # where facets are, and what those that belong there are made from
    ("run", "facets", "RunFacet"),
    ("job", "facets", "JobFacet"),
    ("inputs", "facets", "DatasetFacet"),
    ("inputs", "inputFacets", "InputDatasetFacet"),
    ("outputs", "facets", "DatasetFacet"),
    ("outputs", "outputFacets", "OutputDatasetFacet"),
)
CLASSES: dict[str, type[BaseFacet]] = {  # the client's, for every facet that is not our own
    "dataQualityAssertions": data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet,
    "dataSource": datasource_dataset.DatasourceDatasetFacet,
    "errorMessage": error_message_run.ErrorMessageRunFacet,
    "jobType": job_type_job.JobTypeJobFacet,
    "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
    "parent": parent_run.ParentRunFacet,
    "schema": schema_dataset.SchemaDatasetFacet,
    "tags": tags_run.TagsRunFacet,
    "test": test_run.TestRunFacet,
    "version": dataset_version_dataset.DatasetVersionDatasetFacet,
}

Fault = tuple[Callable[[dict[str, Any]], object], str]  # what breaks an event, and a word of the error


def validate(event: dict[str, Any]) -> None:
    """Raise ValidationError where the event, or a facet in it, is not as our schemas, or the published ones, say."""
    validate_own(event)
    if PUBLISHED:
        validate_published(event)


def validate_own(event: dict[str, Any]) -> None:
    """Raise ValidationError where the event is not as `openlineage_event.schema.json` and our facets' schemas say."""
    _validate(EVENT, event, _own_schemas())


def validate_published(event: dict[str, Any]) -> None:
    """Raise ValidationError where the event, or a facet in it, is not as the schema that it names says."""
    registry: Registry[Any] = Registry(retrieve=_schema)  # type: ignore[call-arg]  # an alias that attrs makes
    _validate({"$ref": event["schemaURL"]}, event, registry)
    for name, facet, where, base in facets_of(event):
        url = facet["_schemaURL"]
        schema = _schema(url.partition("#")[0]).contents
        [(known_as, reference)] = schema["properties"].items()
        assert (known_as, url.partition("#")[2]) == (name, reference["$ref"][1:])
        definition = schema["$defs"][url.rpartition("/")[2]]
        assert definition["allOf"][0]["$ref"].rpartition("/")[2] == base, f"{name} is in {where}"
        _validate({"$ref": url}, facet, registry)


def refuses(check: Callable[[dict[str, Any]], None], event: dict[str, Any], faults: Sequence[Fault]) -> None:
    """Assert that the check takes the event, and not with any one of the faults."""
    check(event)
    for break_it, message in faults:
        broken = deepcopy(event)
        break_it(broken)
        with pytest.raises(ValidationError) as raised:
            check(broken)
        assert message in raised.value.message


def facets_of(event: dict[str, Any]) -> list[tuple[str, dict[str, Any], str, str]]:
    """Return every facet of the event as (name, facet, where it is, base of what belongs there)."""
    return [
        (name, facet, where, base)
        for owner, where, base in PLACES
        for each in (event[owner] if isinstance(event[owner], list) else [event[owner]])
        for name, facet in each.get(where, {}).items()
    ]


def _validate(schema: dict[str, Any], instance: object, registry: Registry[Any]) -> None:
    checker = Draft202012Validator.FORMAT_CHECKER
    assert {"uri", "date-time", "uuid"} <= set(checker.checkers)
    Draft202012Validator(schema, registry=registry, format_checker=checker).validate(instance)


@cache
def _own_schemas() -> Registry[Any]:
    """Return our facets' schemas, with our schema of the event in place of the published one they build on."""
    facets = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(OWN_FACETS.glob("*.json"))]
    schemas = {EVENT["properties"]["schemaURL"]["const"].partition("#")[0]: EVENT} | {
        each["$id"]: each for each in facets
    }
    return Registry().with_contents(schemas.items())


@cache
def _schema(uri: str) -> Resource[Any]:
    """Return the schema of that name in the version that is here, whichever version the URI has."""
    assert PUBLISHED
    name = uri.rpartition("/")[2].rpartition(":")[2]
    places = [OWN_FACETS] if uri.startswith("urn:normloom:") else [PUBLISHED, PUBLISHED / "facets"]
    found = [place / name for place in places if (place / name).is_file()]
    assert found, f"{name} is not in {places[0]}: OPENLINEAGE_SPEC must name the folder `spec` of OpenLineage"
    return Resource.from_contents(json.loads(found[0].read_text(encoding="utf-8")))
