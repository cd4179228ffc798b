"""normloom labels."""

from __future__ import annotations

from normloom.cli.common import DEFAULT_STORE, JsonOption, StoreOption, escaped, out
from normloom.core.formats.json_text import json_text


def labels(store: StoreOption = DEFAULT_STORE, json_: JsonOption = False) -> None:
    """List the queues of rows that wait for people's answers, with their progress.

    A queue is published by a system's nl.ask step, or by normloom audit. docs/labels.md.

    Examples:

        normloom labels

        normloom labels --json

    With --json a list of objects: name, system, questions, rows, answered, waiting, by_person.
    """
    from rich.table import Table

    from normloom.cli.output.labelling import progress_json
    from normloom.labelling.queue import queues
    from normloom.store.store import Store

    found = queues(Store(store))
    if json_:
        print(json_text([progress_json(queue) for queue in found]))
        return
    if not found:
        out.print("No queues. A step nl.ask publishes one when its system is built, and so does normloom audit.")
        return
    table = Table("labels", "system", "rows", "answered", "waiting", "people", box=None)
    for queue in found:
        progress = queue.progress()
        people = ", ".join(f"{who} {count:,}" for who, count in progress.by_person.items())
        counts = (f"{count:,}" for count in (progress.rows, progress.answered, progress.waiting))
        table.add_row(queue.name, escaped(queue.system), *counts, escaped(people))
    out.print(table, highlight=False)
