"""One flow of five steps on several orchestrators; `python -m orchestrated SYSTEM` builds it in the current folder.

The folder holds `prompts.parquet`, `settings.json` and a copy of this package, which the benchmark edits. Each module
`on_SYSTEM` has a function `build` that brings the tables up to date as the system's own documentation would, and
returns the files of the last one. Only `on_normloom` needs anything of ours.
"""
