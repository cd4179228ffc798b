"""The built-in systems with scripted models in all their roles."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from rich.console import Console

from normloom.core.table import Manifest
from normloom.run.build import BuildResult
from normloom.settings.settings import Prepared, stages_for
from normloom.settings.systems import system_named
from normloom.store.store import Store


def prepared(system: str, store: Store, *assignments: str, profile: str = "local") -> Prepared:
    """Return a system with scripted models in all its roles."""
    return stages_for(system, profile=profile, assignments=[*SCRIPTED[system], *assignments], store=store)


def summary_of(system: str, tables: Mapping[str, Manifest], store: Store) -> str:
    """Return what the summary of a build with these tables says besides rows and figures."""
    result = BuildResult(
        system=system,
        build="test",
        manifests=list(tables.values()),
        end=list(tables)[-1],
        reused=frozenset(),
        loads={},
        lock=Path("build.lock"),
        seconds=0,
    )
    console = Console(width=200, record=True, file=StringIO())
    sections = system_named(system).sections
    assert sections is not None
    for section in sections(result, store):
        console.print(section)
    return console.export_text()


_ROLES = {
    "embedder": "{engine: scripted, model: e}",
    "classifier": "{engine: scripted, model: c, options: {yes_rate: 0.05}}",
    "expander": "{engine: scripted, model: x, options: {words: 12}}",
    "judge": "{engine: scripted, model: j, options: {yes_rate: 0.7}}",
    "typer": "{engine: scripted, model: t}",
    "generators": "{g1: {engine: scripted, model: m}, g2: {engine: scripted, model: n}}",
    "raters": "{r1: {engine: scripted, model: r}, r2: {engine: scripted, model: s}}",
}


def _models(*roles: str) -> str:
    return f"models={{{', '.join(f'{role}: {_ROLES[role]}' for role in roles)}}}"


_WRITES = ("embedder", "classifier", "expander", "judge", "generators")
SCRIPTED = {
    "savacu": [_models(*_WRITES)],
    "misaligntrade": [_models(*_WRITES, "typer")],
    "demo_safetybench": [_models("embedder", "classifier", "expander", "raters")],
    "persodpo": [
        "models={encoder: {engine: scripted, model: e}, generators: {"  # noqa: ISC004
        'g1: {engine: scripted, model: m, options: {frame: \'{"response": "%s"}\', frame_rate: 0.8, words: 12}}, '
        'g2: {engine: scripted, model: n, options: {frame: \'{"response": "%s"}\', frame_rate: 0.5, words: 30}}, '
        'g3: {engine: scripted, model: o, options: {frame: \'{"response": "%s\', words: 20}}}}'
    ],
    "alignx": [f"models={{encoder: {_ROLES['embedder']}, judges: {{j1: {_ROLES['judge']}}}}}", "router.epochs=20"],
    "persopilot": ["models={assistant: {engine: scripted, model: a}}"],
    "cross_align": ["models={encoder: {engine: scripted, model: e}}", "adapter.epochs=2", "reading.check=0"],
    "cross_cultural": ["models={encoder: {engine: scripted, model: e}, entrants: {m: {engine: scripted, model: c}}}"],
    "conllm": [
        "models={sound: {spectral: {engine: scripted, model: s}, speaker: {engine: scripted, model: v}}}",
        "align={width: 8, epochs: 2}",
        "refine={width: 8, epochs: 2}",
    ],
    "missing_modality": [
        "models={text: {engine: scripted, model: t}, image: {engine: scripted, model: i}}",
        "fits={width: 8, epochs: 2}",
        "ocr.per_language=0",
    ],
    "benchmark": [f"models={_ROLES['generators']}", f"judges={{j1: {_ROLES['judge']}}}"],
}

FEW = {  # settings of small builds
    "savacu": ["classify.route=exhaustive", "source.limit=8", "rounds=1", "judge.calibration=none"],
    "misaligntrade": ["source.limit=8", "rounds=1", "judge.calibration=none"],
    "demo_safetybench": ["classify.route=exhaustive"],
    "persodpo": ["source.limit=4"],
}
