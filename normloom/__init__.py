"""The loom: store, stage runner, actors, models, quality, lineage. Knows no system, no taxonomy, no prompt.

Public names, imported from their modules so that a command pays only for what it uses:

- `normloom.stage`: `Stage`, `Output`; `normloom.contract`: `Contract`, `Check`
- `normloom.build`: `build`, `reuse`, `BuildResult`; `normloom.pool`: `Pool`, `Resources`
- `normloom.store`: `Store`; `normloom.table`: `TableRef`, `Manifest`; `normloom.views`: `connect`, `query`
- `normloom.models`: `ModelSpec`, `LanguageModel`, `Embedder`, `Sampling` and the requests, `load_model`
- `normloom.errors`: `NormloomError` and what derives from it
"""
