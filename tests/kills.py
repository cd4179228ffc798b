"""Kill builds with SIGKILL at random moments, start the same command again, and hold the store to its promises.

    python tests/kills.py --flow 16 --actor 10 --raylet 4
    python tests/kills.py --profile local --limit 6 --set rounds=0 --flow 3 --actor 2

prints what was survived. `tests/workers/test_kills.py` does the same with the scripted model.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import psutil
from prefect_home import Prefect, running_prefect

from normloom.core.table import KINDS
from normloom.settings.settings import stages_for
from normloom.store.parts import committed_part
from normloom.store.store import Store
from normloom.testing import made

ROOT = Path(__file__).parent.parent
LONGEST_RUN = 900.0  # seconds; a build that takes longer hangs
LONGEST_WAIT = 6.0  # seconds before a flow is killed: about as long as the scripted build takes
SCRIPTED = """
systems:
  savacu:
    models:
      embedder: {engine: scripted, model: e}
      classifier: &reader {engine: scripted, model: reader, options: {latency_s: 0.03}}
      expander: *reader
      judge: *reader
      generators:
        g1: &writer {engine: scripted, model: writer, options: {latency_s: 0.06}}
        g2: *writer
    classify: {part_rows: 2}
    expand: {minimum: 0, quota: 1, dimensions: [safety]}
    generate: {part_rows: 2, candidates: 2}
    judge: {part_rows: 8}
    rounds: 1
"""


@dataclass
class Report:
    """What was done to the builds and how they took it."""

    kills: dict[str, int] = field(default_factory=lambda: {"flow": 0, "actor": 0, "raylet": 0})
    builds: int = 0
    runs: int = 0
    parts: int = 0
    parts_kept: int = 0  # of those that were committed when a process was killed
    parts_redone: int = 0
    reads: int = 0
    bad_reads: list[str] = field(default_factory=list)
    other_contents: list[str] = field(default_factory=list)
    seconds_to_resume: list[float] = field(default_factory=list)  # from the command to the first new part
    seconds_to_free_actors: list[float] = field(default_factory=list)  # after the flow's death


@dataclass(frozen=True)
class Builder:
    """The command that is killed and given again."""

    profile: str
    settings: Sequence[str]
    environment: dict[str, str]

    @property
    def arguments(self) -> list[str]:
        return ["--profile", self.profile, *(part for setting in self.settings for part in ("--set", setting))]

    def undisturbed(self, store: Path) -> dict[str, str]:
        """Make all tables in this process, to which nothing happens, and return their contents by stage."""
        where = Store(store)
        ends = stages_for("savacu", profile=self.profile, assignments=self.settings, store=where).ends
        return {stage: manifest.content for stage, manifest in made("savacu", ends, where).items()}

    def start(self, store: Path, *, actors: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "normloom", "build", "savacu", *self.arguments, "--json"]
        return subprocess.Popen(
            [*command, "--store", str(store), "--set", f"resources.actors={actors}"],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the build; raise with what it said where it failed."""
        _, said = process.communicate(timeout=LONGEST_RUN)
        if process.returncode:
            raise RuntimeError(f"the build ended with {process.returncode}: {said.decode()[-3000:]}")


def survive(builder: Builder, place: Path, kills: dict[str, int], *, seed: int = 0, actors: int = 1) -> Report:
    """Kill builds a number of times, each on the way to a finished one, and report."""
    chance, report = random.Random(seed), Report()
    expected = builder.undisturbed(place / "undisturbed")
    targets = [target for target, count in kills.items() for _ in range(count)]
    chance.shuffle(targets)
    while targets:
        report.builds += 1
        store = place / f"build-{report.builds}"
        with _reading(Store(store), report):
            _one_build(builder, store, targets, chance, report, actors)
        report.parts += len(_committed(store))
        report.other_contents += [stage for stage, content in _contents(store).items() if expected[stage] != content]
    return report


def _one_build(
    builder: Builder, store: Path, targets: list[str], chance: random.Random, report: Report, actors: int
) -> None:
    """Take one build to its end through as many kills as fall into it."""
    known: dict[Path, tuple[int, bytes]] = {}  # parts that were committed when something was killed
    killed = False
    while True:
        report.runs += 1
        with_actors = bool(targets) and (targets[-1] != "flow" or chance.random() < 0.3)
        before, started = set(_committed(store)), time.monotonic()
        unfinished = _unfinished(store)
        process = builder.start(store, actors=actors if with_actors else 0)
        watched = psutil.Process(process.pid)
        resumed = _Until(partial(lambda before: bool(set(_committed(store)) - before), before))

        def begun(known: set[Path] = unfinished) -> bool:
            return bool(_unfinished(store) - known)

        while targets and (target := _victim(watched, targets[-1], chance, begun)):
            known |= _committed(store)
            crew = [child for child in watched.children(recursive=True) if is_target(child, "actor")]
            with suppress(psutil.NoSuchProcess):
                os.kill(target.pid, signal.SIGKILL)
                report.kills[targets.pop()] += 1
            if target == watched:
                process.communicate()
                if crew:
                    report.seconds_to_free_actors.append(_gone(crew))
                break
        else:
            _, said = process.communicate(timeout=LONGEST_RUN)
            if process.returncode not in {0, 1, -signal.SIGABRT}:  # Ray aborts a process whose raylet dies at its start
                raise RuntimeError(f"the build ended with {process.returncode}: {said.decode()[-3000:]}")
        if killed and (at := resumed.stop()):
            report.seconds_to_resume.append(at - started)
        killed = process.returncode == -signal.SIGKILL
        now = _committed(store)
        report.parts_redone += sum(now.get(marker) != content for marker, content in known.items())
        report.parts_kept = report.parts_kept + (len(known) if process.returncode == 0 else 0)
        if process.returncode == 0:
            return


def _victim(
    flow: psutil.Process, target: str, chance: random.Random, begun: Callable[[], bool]
) -> psutil.Process | None:
    """Return the process to kill at a random moment after the build has begun, None if the flow ends before."""
    deadline = time.monotonic() + LONGEST_RUN
    while time.monotonic() < deadline and flow.is_running() and flow.status() != psutil.STATUS_ZOMBIE:
        try:
            found = (
                [flow] * begun()
                if target == "flow"
                else [child for child in flow.children(recursive=True) if is_target(child, target)]
            )
            if found:
                time.sleep(chance.uniform(0.0, LONGEST_WAIT) if target == "flow" else chance.uniform(0.0, 2.0))
                alive = flow.is_running() and flow.status() != psutil.STATUS_ZOMBIE
                return chance.choice(found) if alive else None
        except psutil.NoSuchProcess:
            continue
        time.sleep(0.05)
    return None


def is_target(process: psutil.Process, target: str) -> bool:
    """Return whether a process is an actor with a model, or Ray's raylet."""
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
        name = " ".join(process.cmdline()[:1])
        return name.startswith("ray::ModelActor") if target == "actor" else process.name() == "raylet"
    return False


def _gone(crew: Sequence[psutil.Process]) -> float:
    """Return the seconds until none of these processes is left."""
    started = time.monotonic()
    _, alive = psutil.wait_procs(crew, timeout=60)
    if alive:
        raise RuntimeError(f"{len(alive)} actors outlived their build by a minute")
    return time.monotonic() - started


def _unfinished(store: Path) -> set[Path]:
    """Return the records of builds that have begun and not ended."""
    return set((store / "savacu" / "builds").glob("*.json"))


def _committed(store: Path) -> dict[Path, tuple[int, bytes]]:
    """Return the markers of committed parts that verify, with their time and content."""
    found: dict[Path, tuple[int, bytes]] = {}
    for marker in store.glob("savacu/*/*/part-*.json"):
        if committed_part(marker.parent, int(marker.stem.removeprefix("part-"))):
            found[marker] = (marker.stat().st_mtime_ns, marker.read_bytes())
    return found


def _contents(store: Path) -> dict[str, str]:
    return {manifest.stage: manifest.content for manifest in Store(store).newest("savacu")}


class _Until:
    """Watches for a condition and remembers when it came true."""

    def __init__(self, condition: Callable[[], bool]) -> None:
        self._condition = condition
        self._ended = threading.Event()
        self._at: float | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            if self._condition():
                self._at = time.monotonic()
                return

    def stop(self) -> float | None:
        self._ended.set()
        self._thread.join()
        return self._at


@contextmanager
def _reading(store: Store, report: Report) -> Iterator[None]:
    """Read every published table again and again meanwhile: each must be whole."""
    ended = threading.Event()

    def read() -> None:
        while not ended.wait(0.5):
            for manifest in store.newest("savacu"):
                for kind in KINDS:
                    report.reads += 1
                    try:
                        height = store.scan(manifest.ref, kind).collect().height
                    except Exception as error:  # noqa: BLE001  # whatever a reader gets to see is the finding
                        report.bad_reads.append(f"{manifest.ref} {kind}: {error}")
                    else:
                        if height != manifest.count(kind):
                            report.bad_reads.append(f"{manifest.ref} {kind}: {height} of {manifest.count(kind)} rows")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        ended.set()
        reader.join()


def scripted_builder(place: Path, prefect: Prefect, *settings: str) -> Builder:
    """Return the scripted SaVaCu build, with these settings too, all of whose runs are on one Prefect server."""
    profile = place / "profile.yaml"
    profile.write_text(SCRIPTED)
    return builder_of(str(profile), ["source.limit=12", *settings], prefect)


def builder_of(profile: str, settings: Sequence[str], prefect: Prefect) -> Builder:
    """Return the build with these settings, all of whose runs are on one Prefect server."""
    with prefect.used():
        return Builder(profile, settings, dict(os.environ))


def main() -> None:
    """Kill and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for target in ("flow", "actor", "raylet"):
        parser.add_argument(f"--{target}", type=int, default=0, help=f"how often to kill a {target}")
    parser.add_argument("--profile", help="default: a scripted model")
    parser.add_argument("--limit", default="12")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    kills = {target: getattr(options, target) for target in ("flow", "actor", "raylet")}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        settings = [f"source.limit={options.limit}", *options.set]
        with running_prefect(place / "prefect") as prefect:
            own = options.profile
            builder = builder_of(own, settings, prefect) if own else scripted_builder(place, prefect)
            report = survive(builder, place, kills, seed=options.seed)
    print(json.dumps(asdict(report), indent=1))


if __name__ == "__main__":
    main()
