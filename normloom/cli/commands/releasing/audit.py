"""normloom audit."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normloom.cli.common import DEFAULT_STORE, JsonOption, StoreOption, SystemArgument, console, escaped, out
from normloom.core.errors import ReleaseError, UsageError
from normloom.core.formats.json_text import json_text

if TYPE_CHECKING:
    from normloom.settings.faces.audits import Audit
    from normloom.store.store import Store
    from normloom.tasks.audit.auditing import AuditView


BUDGET = 100


class AuditFigure(StrEnum):
    """The figure whose interval the audit narrows."""

    SHARE = "share"
    PRECISION = "precision"


def audit(  # each an option
    system: SystemArgument,
    budget: Annotated[int, typer.Option(min=1, help="How many rows people answer.")] = BUDGET,
    figure: Annotated[AuditFigure, typer.Option(help="The figure whose interval to narrow.")] = AuditFigure.SHARE,
    of: Annotated[str, typer.Option(help="The verdict that the figure is about.", show_default="the system's")] = "",
    need: Annotated[
        int | None,
        typer.Option(min=5, help="Number of answers that is enough to continue.", show_default="all of the budget"),
    ] = None,
    at_least: Annotated[
        list[str] | None,
        typer.Option(
            help='A bound that the release must reach, like "precision misaligned 0.9": the lower end of the 95 % '
            "interval is at least 0.9; repeatable.",
            show_default=False,
        ),
    ] = None,
    verdict: Annotated[str | None, typer.Option(help="The judge's column.", show_default="the system's")] = None,
    show: Annotated[list[str] | None, typer.Option(help="A column that people see; repeatable.")] = None,
    by: Annotated[list[str] | None, typer.Option(help="A column to give figures by; repeatable.")] = None,
    margin: Annotated[str | None, typer.Option(help="How sure the judge is, from 0 to 1.", show_default=False)] = None,
    question: Annotated[str, typer.Option(help="What people are asked.", show_default="the system's")] = "",
    table: Annotated[str | None, typer.Option(help="The stage to audit.", show_default="the release")] = None,
    store: StoreOption = DEFAULT_STORE,
    json_: JsonOption = False,
) -> None:
    """Have people answer a few rows of a release, and correct its figures for the judge's measured error.

    Rows are drawn by verdict, margin and group so that the interval of one figure becomes narrow, and wait in a queue:
    the command exits with 3 until normloom label has the answers, then prints the figures. A larger budget keeps the
    answers and asks for more. Exported cards carry the figures of an audited release, and a release that misses a bound
    is not exported. docs/audit.md.

    Examples:

        normloom audit savacu --budget 100

        normloom audit savacu --figure precision --of misaligned --at-least "precision misaligned 0.9"

        normloom audit my_flow.py --verdict label --show text --by source --margin confidence

    With --json one object: table, answers, figures (metric, of, axis, slice_by, slice, value, low, high, rows,
    undefined), random_answers, missed.
    """
    from normloom.settings.faces.audits import audit_of
    from normloom.settings.systems import name_of
    from normloom.store.store import Store
    from normloom.tasks.audit.bounds import Bound

    bounds = [Bound.parse(text) for text in at_least or ()]
    view = _view(system, verdict=verdict, show=show, by=by, margin=margin, question=question)
    where = Store(store)
    found = audit_of(
        where, name_of(system), view, budget=budget, figure=figure.value, of=of, stage=table, bounds=bounds, need=need
    )
    options: dict[str, Any] = {"budget": budget, "need": need, "figure": figure.value, "of": of, "at-least": at_least}
    options |= {"verdict": verdict, "show": show, "by": by, "margin": margin, "question": question}
    options |= {"table": table, "store": store}
    rows = _built(found, where, quiet=json_, command=_command(system, options))
    _tell(rows, found, as_json=json_)


def _view(system: str, **given: Any) -> AuditView:
    """Return the system's audit view, overridden by the options."""
    from normloom.core.names import is_flow_file
    from normloom.settings.systems import system_named, system_names
    from normloom.tasks.audit.auditing import AuditView

    known = is_flow_file(system) or system in system_names()
    own = system_named(system).audit if known else None  # a flow of a notebook is known to the store only
    said = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items() if value}
    if own:
        return AuditView(**{**own.model_dump(), **said})
    if missing := [name for name in ("verdict", "show") if name not in said]:
        raise UsageError(f"{system} declares no audit: give --{missing[0]} COLUMN")
    return AuditView(**said)


def _command(system: str, options: Mapping[str, Any]) -> str:
    """Return the command with the options that were given, quoted for a shell."""
    usual = {"budget": BUDGET, "figure": AuditFigure.SHARE.value, "store": DEFAULT_STORE}
    words = ["normloom", "audit", system]
    for name, given in options.items():
        if given and given != usual.get(name):
            for one in given if isinstance(given, list) else [given]:
                words += [f"--{name}", str(one)]
    return shlex.join(words)


def _built(found: Audit, store: Store, *, quiet: bool, command: str) -> Any:
    """Build the audit and return its figures; raises WaitingError while rows wait for answers."""
    from normloom.cli.run import make
    from normloom.run.build import BuildRequest
    from normloom.workers.resources import Resources

    result = make(
        [found.end],
        request=BuildRequest(system=found.name, target=None, command=command),
        store=store,
        resources=Resources(actors=0),
        console=console(stderr=True, quiet=quiet),
    )
    return store.scan(result.released.ref).collect()


def _tell(rows: Any, found: Audit, *, as_json: bool) -> None:
    """Print the figures; raises ReleaseError for bounds that are missed."""
    from normloom.tasks.audit.bounds import missed

    lacking = list(missed(rows, found.bounds))
    answers = rows.filter(metric="random_answers")
    needed = answers["value"][0] if answers.height else None
    if as_json:
        shown = rows.filter(rows["metric"] != "random_answers").drop("row_id", "parents", "spread").to_dicts()
        told = {
            "table": str(found.table.ref),
            "answers": int(answers["rows"][0]) if answers.height else 0,
            "figures": shown,
            "random_answers": needed,
            "missed": lacking,
        }
        print(json_text(told))
    else:
        _show(rows, found, needed)
    if lacking:
        raise ReleaseError(f"the audit of {found.table.system} misses {len(lacking)} bounds: {'; '.join(lacking)}")


def _show(rows: Any, found: Audit, needed: float | None) -> None:
    from rich.table import Table

    shown = Table("figure", "of", "method", "value", "95 % interval", "rows", box=None)
    overall = rows.filter(slice_by="overall").filter(rows.filter(slice_by="overall")["metric"] != "random_answers")
    for row in overall.iter_rows(named=True):
        value = f"{row['value']:.3f}" if row["value"] is not None else "-"
        interval = "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
        interval = interval or (escaped(row["undefined"]) if row["value"] is None else "")
        shown.add_row(
            escaped(row["metric"]), escaped(row["of"]), escaped(row["axis"]), value, interval, f"{row['rows']:,}"
        )
    out.print(f"[bold]{escaped(found.table.ref.stage)}[/] of {escaped(found.table.system)}, audited", highlight=False)
    out.print(shown, highlight=False)
    if needed is not None:
        out.print(
            f"Rows drawn at random would have taken {needed:,.0f} answers for the same {found.args.figure} of "
            f"{escaped(found.args.of)}.",
            highlight=False,
        )
    if rows["slice_by"].n_unique() > 1:
        out.print(f"Figures by group: normloom query, the table {escaped(found.name)}_audit_figures.", highlight=False)
