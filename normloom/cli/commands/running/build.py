"""normloom build."""

from __future__ import annotations

from normloom.cli.common import JsonOption, err
from normloom.cli.options import BuildOptions, taking
from normloom.core.errors import UsageError
from normloom.core.formats.json_text import json_text


@taking(BuildOptions)
def build(given: BuildOptions, json_: JsonOption = False) -> None:
    """Bring a system's tables up to date and print what was made.

    Stages whose inputs, settings, templates, models and code are unchanged are reused. Rerun the command to resume a
    build that was interrupted or failed: finished parts are kept, and rows lost to an outage are retried.

    After --only or --from, downstream tables are shown as stale until they are rebuilt. --only 'STAGE where CONDITION'
    builds the parts of a stage that read rows matching a SQL condition, and brings its inputs up to date; while other
    parts are left it exits with 3, and the next build builds those. --force and --fresh give a stage a new table,
    which later builds use; if its rows are unchanged, downstream tables are kept.

    Examples:

        normloom build savacu

        normloom build savacu --source my_prompts.csv --text-column prompt --limit 200

        normloom build savacu --only judge_0

        normloom build cross_cultural --only "score_smollm2 where language = 'hi' and shot = 'one'"
    """
    from normloom.cli.interrupt import leaving_quietly
    from normloom.cli.machine.doctor import examine_store
    from normloom.cli.run import run_build

    if (examined := examine_store(given.store)).state == "broken":
        raise UsageError(f"{examined.detail}: {examined.remedy}")
    with leaving_quietly(err):
        report = run_build(
            given.system,
            profile=given.profile,
            assignments=given.assignments,
            root=given.store,
            quiet=json_,
            selection=given.selection,
        )
    if json_:
        print(json_text(report))
