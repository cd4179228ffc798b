"""What of a flow is published already, found without starting anything."""

from __future__ import annotations

from collections.abc import Sequence

from normloom.keys import key_fields, stage_key
from normloom.stage import Stage
from normloom.store import Store
from normloom.table import Manifest


def find_published(system: str, stages: Sequence[Stage], store: Store) -> dict[str, Manifest]:
    """Return the manifests of the stages whose tables are published, by stage name.

    The key of a stage needs the content of the tables it reads, so nothing is known of a stage that
    stands on one that is still to be made.
    """
    found: dict[str, Manifest] = {}
    for stage in stages:
        if all(upstream.name in found for upstream in stage.upstream):
            inputs = [found[upstream.name].content for upstream in stage.inputs]
            sides = [found[upstream.name].content for upstream in stage.sides]
            key = stage_key(key_fields(system, stage, inputs=inputs, sides=sides))
            manifest = store.published(system, stage.name, key)
            if manifest:
                found[stage.name] = manifest
    return found
