"""One flow of five steps on several orchestrators; `python -m orchestrated SYSTEM` builds it in the current folder.

The folder holds `prompts.parquet`, `settings.json` and a copy of this package, which the benchmark edits. Each module
`on_SYSTEM` has a function `build` that brings the tables up to date the way the system's own documentation does, and
returns the files of the last one. Only `on_normloom` and `on_runner` import Normloom.
"""
