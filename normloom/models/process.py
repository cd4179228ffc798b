"""A process without a model, for stages that ask for one of their own."""

from __future__ import annotations

import sys

from normloom.core.models.needs import ProcessSpec


def no_model(spec: ProcessSpec, *, threads: int | None = None) -> None:  # noqa: ARG001  # as an engine is called
    """Load nothing; bound the threads of torch if it is there already."""
    if threads is not None and (torch := sys.modules.get("torch")):
        torch.set_num_threads(threads)
