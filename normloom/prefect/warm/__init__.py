"""Runs of `normloom serve` as copies of one process that has imported what flow runs need.

`held` keeps that process for `serve`, `forks` is it, `ask` stands for a run in the eyes of Prefect's runner, `files`
tells whether code has changed. Linux only: elsewhere, and whenever a copy would differ from it, a run is a new process.
"""
