"""What it costs to rebuild after new prompts arrive, stage by stage, compared with a build from nothing.

All of SaVaCu with models that answer instantly (benchmarks/rebuild.py), in this process, so that the CPU seconds of a
stage are its own: a build of the source, a build after `--added` prompts were added, and a build of that larger source
in an empty store, which must release the same rows. `--where middle` inserts the new prompts half-way through the
source instead of at its end. Start-up (Prefect, Ray) is not included.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import polars as pl
from common import Report, parser
from rebuild import EXPANSION, RESPONSES, write_profile, write_prompts

from normloom.core.machine.collector import collect_rarely
from normloom.core.progress import LogProgress
from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.run.runner import StageRunner
from normloom.settings.settings import stages_for
from normloom.steps.graph import model_uses, stages_of
from normloom.store.store import Store
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources


@dataclass(frozen=True)
class Made:
    """A table of a build: the CPU seconds of its stage, and the parts that it made of those that the table has."""

    manifest: Manifest
    reused: bool
    cpu: float

    @property
    def parts(self) -> int:
        """How many parts the table has."""
        return len(self.manifest.parts)

    @property
    def parts_made(self) -> int:
        """How many of them this build made."""
        return 0 if self.reused or not self.manifest.work else self.manifest.work.parts


@dataclass(frozen=True)
class Source:
    """A source of prompts in a folder, and builds of it."""

    folder: Path

    def stages(self, store: Store) -> list[Stage]:
        """Return the stages of a build, each after those that it reads."""
        prepared = stages_for(
            "savacu",
            profile=str(self.folder / "profile.yaml"),
            assignments=[f"source.path={self.folder / 'prompts.parquet'}"],
            store=store,
        )
        return stages_of(*prepared.ends)

    def build(self, name: str) -> dict[str, Made]:
        """Make the tables in this process, one stage after another."""
        collect_rarely()  # as commands do
        store = Store(self.folder / name)
        stages = self.stages(store)
        pool = Pool(Resources(actors=0), model_uses(stages))
        runner = StageRunner(system="savacu", store=store, pool=pool, build=name, progress=LogProgress())
        made: dict[str, Made] = {}
        try:
            for stage in stages:
                started = time.process_time()
                reads = ([made[one.name].manifest.ref for one in group] for group in (stage.inputs, stage.side_inputs))
                manifest, reused = runner.run(stage, *reads)
                made[stage.name] = Made(manifest, reused, time.process_time() - started)
        finally:
            pool.close()
        return made


def with_more(path: Path, added: int, *, where: str) -> None:
    """Add prompts of the words of those that are there."""
    before = pl.read_parquet(path)
    write_prompts(more := path.with_name("more.parquet"), added, seed=11)
    middle = before.height if where == "end" else before.height // 2
    pl.concat([before[:middle], pl.read_parquet(more), before[middle:]]).write_parquet(path)


def stage_rows(full: dict[str, Made], after: dict[str, Made]) -> list[dict[str, Any]]:
    """Return a table of the stages: the incremental build against that from nothing."""
    return [
        {
            "stage": name,
            "rows": one.manifest.count("rows"),
            "parts": after[name].parts,
            "made": after[name].parts_made,
            "full CPU s": one.cpu,
            "incremental CPU s": after[name].cpu,
            "ratio": one.cpu / max(after[name].cpu, 1e-4),
            "same": after[name].manifest.content == one.manifest.content,
        }
        for name, one in full.items()
    ]


def same_rows(names: Sequence[str], folder: Path, one: dict[str, Made], other: dict[str, Made], table: str) -> bool:
    """Return whether two builds have the same rows in a table, in the same order."""
    frames = [
        Store(folder / name).scan(made[table].manifest.ref).collect()
        for name, made in zip(names, (one, other), strict=True)
    ]
    return frames[0].equals(frames[1])


def main() -> None:
    """Measure."""
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, default=38_242, help="most responses released before any are added")
    arguments.add_argument("--added", type=int, default=100, help="prompts added to the source")
    arguments.add_argument("--part-rows", type=int, default=512, help="prompts or candidates in a part; half to draw")
    arguments.add_argument("--where", choices=("end", "middle"), default="end")
    arguments.add_argument("--keep", action="store_true", help="keep the folder with the stores")
    given = arguments.parse_args()
    report = Report(given.json)
    source = Source(Path(mkdtemp(prefix="normloom-incremental-")))
    prompts = max(given.rows // RESPONSES, 1)
    before = round((1 - EXPANSION) * prompts)
    report.note(f"{before:,} prompts and {given.added:,} at the {given.where}, in {source.folder}")
    write_prompts(source.folder / "prompts.parquet", before)
    write_profile(source.folder / "profile.yaml", prompts, actors=0, part_rows=given.part_rows)
    source.build("store")
    with_more(source.folder / "prompts.parquet", given.added, where=given.where)
    after = source.build("store")
    full = source.build("nothing")
    rows = stage_rows(full, after)
    report.add(f"{given.added:,} prompts added to {before:,}", rows)
    report.add(
        "All stages",
        [
            {
                "full CPU s": (whole := sum(one.cpu for one in full.values())),
                "incremental CPU s": (part := sum(one.cpu for one in after.values())),
                "ratio": whole / part,
                "ratio of rows": (before + given.added) / given.added,
                "parts": sum(one.parts for one in after.values()),
                "made": sum(one.parts_made for one in after.values()),
                "same release": same_rows(("store", "nothing"), source.folder, after, full, "publish"),
            }
        ],
    )
    report.end()
    if not given.keep:
        shutil.rmtree(source.folder)


if __name__ == "__main__":
    main()
