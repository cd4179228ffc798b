"""The loom: store, stage runner, actors, models, quality, lineage. Knows no system, no taxonomy, no prompt.

Public names, imported from their modules so that a command pays only for what it uses:

- `normloom.stage`: `Stage`, `Output`; `normloom.contract`: `Contract`, `Check`
- `normloom.build`: `build`, `reuse`, `BuildRequest`, `BuildResult`
- `normloom.pool`: `Pool`; `normloom.resources`: `Resources`; `normloom.selection`: `Selection`
- `normloom.store`: `Store`; `normloom.table`: `TableRef`, `Manifest`; `normloom.views`: `connect`, `query`
- `normloom.plan`: `plan`; `normloom.causes`: `causes`; `normloom.diff`: `diff`; `normloom.trace`: `trace`
- `normloom.models`: `ModelSpec`, `LanguageModel`, `Embedder`, `Sampling` and the requests, `load_model`
- `normloom.errors`: `NormloomError` and what derives from it
"""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("normloom")
