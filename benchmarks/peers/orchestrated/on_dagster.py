"""Dagster: an asset per step, partitioned by chunk, stored as Parquet, with code versions written by hand.

A build materialises what is missing or stale, as determined by *Materialize unsynced* in its UI.
"""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import dagster as dg
import polars as pl
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus

from orchestrated import steps
from orchestrated.settings import PROMPTS, Built, Settings

FOLDER = Path("tables")


class ParquetFiles(dg.ConfigurableIOManager):
    """A file for each asset and partition; an asset over all partitions reads them in order."""

    def handle_output(self, context: dg.OutputContext, obj: pl.DataFrame) -> None:
        """Write a partition."""
        partition = context.partition_key if context.has_partition_key else None
        path = file_of(context.asset_key.path[-1], partition)
        path.parent.mkdir(parents=True, exist_ok=True)
        obj.write_parquet(path)

    def load_input(self, context: dg.InputContext) -> pl.DataFrame:
        """Read a partition, or all of them for an asset without partitions."""
        name = context.asset_key.path[-1]
        keys = context.asset_partition_keys if context.has_asset_partitions else [None]
        return pl.concat([pl.read_parquet(file_of(name, key)) for key in keys])


def file_of(asset: str, partition: str | None) -> Path:
    """Return where a partition of an asset lies."""
    return FOLDER / asset / f"{partition or 'all'}.parquet"


def assets(settings: Settings, keys: list[str]) -> list[dg.AssetsDefinition]:
    """Return the five assets. The threshold and the prompts' digest are in code versions: nothing else would tell."""
    digest = hashlib.sha256(PROMPTS.read_bytes()).hexdigest()
    chunked = partial(dg.asset, partitions_def=dg.StaticPartitionsDefinition(keys))

    @chunked(code_version=f"1 {digest}")
    def prompts(context: dg.AssetExecutionContext) -> pl.DataFrame:
        """Read a chunk of the prompts."""
        return steps.read(PROMPTS).slice(int(context.partition_key) * settings.chunk, settings.chunk)

    @chunked(code_version="1")
    def labelled(prompts: pl.DataFrame) -> pl.DataFrame:
        """Label a chunk."""
        return steps.classify(prompts)

    @chunked(code_version="1")
    def drawn(labelled: pl.DataFrame) -> pl.DataFrame:
        """Draw the candidates of a chunk."""
        return steps.generate(labelled)

    @chunked(code_version=f"1 {settings.threshold}")
    def judged(drawn: pl.DataFrame) -> pl.DataFrame:
        """Judge the candidates of a chunk."""
        return steps.judge(drawn, settings.threshold)

    @dg.asset(code_version="1")
    def selected(judged: pl.DataFrame) -> pl.DataFrame:
        """Select from all."""
        return steps.select(judged)

    return [prompts, labelled, drawn, judged, selected]


def build(settings: Settings) -> Built:
    """Materialise each partition that is missing or stale, then the selection."""
    rows = pl.scan_parquet(PROMPTS).select(pl.len()).collect().item()
    keys = [f"{number:05d}" for number in range(-(-rows // settings.chunk))]
    made = assets(settings, keys)
    Path("dagster").mkdir(exist_ok=True)
    failed = []
    with dg.DagsterInstance.local_temp(str(Path("dagster").absolute())) as instance:
        for partition, wanted in stale(made, keys, instance):
            done = dg.materialize(
                made,
                selection=wanted,
                partition_key=partition,
                instance=instance,
                resources={"io_manager": ParquetFiles()},
                raise_on_error=False,
            )
            failed += [] if done.success else [partition or "all"]
    if failed:
        raise SystemExit(f"failed: {failed}")
    return Built([file_of("selected", None)])


def stale(
    made: list[dg.AssetsDefinition], keys: list[str], instance: dg.DagsterInstance
) -> Iterator[tuple[str | None, list[dg.AssetsDefinition]]]:
    """Yield the assets to materialise, for each partition and at last for all."""
    graph = AssetGraph.from_assets(made)
    for partition, among in [*((key, made[:-1]) for key in keys), (None, made[-1:])]:
        view = AssetGraphView.for_test(dg.Definitions(assets=made), instance)
        status = CachingStaleStatusResolver(instance, graph, view).get_status
        if wanted := [asset for asset in among if status(asset.key, partition) != StaleStatus.FRESH]:
            yield partition, wanted
