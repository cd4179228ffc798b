"""Commands that read a store answer at once: they import no library that only a build needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import words_stage

HEAVY = ("torch", "transformers", "tokenizers", "ray", "prefect", "great_expectations", "scipy", "sklearn", "numba")
# Runs commands one after another and prints for each how it ended and which heavy libraries are there by then.
SCRIPT = """
import json, sys
from normloom.cli.app import main

heavy, *lines = json.load(sys.stdin)
for line in lines:
    sys.argv = ["normloom", *line]
    try:
        main()
    except SystemExit as ended:
        print(json.dumps([line, ended.code, [name for name in heavy if name in sys.modules]]), file=sys.stderr)
"""


def test_commands_that_read_import_nothing_that_only_a_build_needs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in (1, 2):
        built(store, words_stage("a", "b"), build=build_id(number))
    manifest = store.current("toy", "words")
    assert manifest is not None
    row = store.scan(manifest.ref).collect()["row_id"][0]
    lines = [
        ["--help"],
        ["query", "--help"],
        *(
            [*line, "--store", str(tmp_path), "--json"]
            for line in (
                ["query", "FROM toy_words"],
                ["tables", "toy"],
                ["builds", "toy"],
                ["trace", row],
                ["diff", build_id(1), build_id(2)],
                ["verify", "toy"],
            )
        ),
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps([HEAVY, *lines]), check=True, capture_output=True, text=True
    )
    assert [json.loads(line) for line in done.stderr.splitlines()] == [[line, 0, []] for line in lines]
