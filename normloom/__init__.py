"""The loom: store, stage runner, actors, models, quality, lineage. Knows no system, no taxonomy, no prompt.

Public names, imported from their modules so that a command pays only for what it uses:

- `normloom.core.stage`: `Stage`, `Output`; `normloom.core.contract`: `Contract`, `Check`
- `normloom.run.build`: `build`, `reuse`, `BuildRequest`, `BuildResult`
- `normloom.workers.pool`: `Pool`; `normloom.workers.resources`: `Resources`; `normloom.steps.selection`: `Selection`
- `normloom.store.store`: `Store`; `normloom.core.table`: `TableRef`, `Manifest`; `normloom.store.views`: `connect`, `query`
- `normloom.planning.plan`: `plan`; `normloom.planning.causes`: `causes`; `normloom.lineage.diff`: `diff`; `normloom.lineage.trace`: `trace`
- `normloom.models`: `ModelSpec`, `LanguageModel`, `Embedder`, `Sampling` and the requests, `load_model`
- `normloom.core.errors`: `NormloomError` and what derives from it
"""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("normloom")
