"""A trace as a tree: each row with what its stage changed, and below it the siblings that were dropped."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from normloom.core.rows.text import counted
from normloom.lineage.trace import LedgerEntry, Sibling, Trace
from normloom.lineage.trained import Trained

SHOWN = 3  # of ledger entries and siblings
BRANCHES = 10
ITEMS = 6
SHORT_ID = 8
SMALLEST_ROUNDED = 0.01
LONGEST_NAME = 32  # of a text that stands in the line of names and figures
LARGEST_FIGURE = 10**9  # seeds and fingerprints tell a person nothing

_ROW_ID = re.compile(r"[0-9a-f]{32}")
_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), " ")


def tree_of(trace: Trace) -> Tree:
    """Return the tree of a trace: it branches at rows with several next rows."""
    if not trace.rows:
        tree = Tree(Text.assemble((_short(trace.row_id), "bold"), ("  only in the ledger", "yellow")))
        _hang(tree, [_entry(entry, {}) for entry in trace.ledger])
        return tree
    return _Drawing(trace).draw()


def trained(model: Trained, *, forward: bool) -> Text:
    """Return what a trained model on the way has to do with it."""
    learned = " and ".join(f"{counted(count)} of {table}" for table, count in model.learned_from.items()) or "no row"
    wrote = ", ".join(model.wrote) or "no table yet"
    line = Text.assemble(("model ", "bold"), (model.product, "bold cyan"))
    ids = ", ".join(map(_short, model.rows[:SHOWN])) + (", ..." if forward and len(model.rows) > SHOWN else "")
    if forward:
        return line.append(f"  learned from {len(model.rows):,} of these rows ({ids}), of {learned}; wrote {wrote}")
    return line.append(f"  wrote {wrote}; learned from {learned}, such as {ids}" if ids else f"  wrote {wrote}")


class _Drawing:
    """Draws a trace; rows that were already drawn are only named."""

    def __init__(self, trace: Trace) -> None:
        self.rows = {row.row_id: row for row in trace.rows}
        self.start = trace.rows[0]
        self.next: dict[str, list[str]] = {}
        for parent, child in trace.edges:
            here, there = (parent, child) if trace.forward else (child, parent)
            self.next.setdefault(here, []).append(there)
        self.taken_out: dict[str, list[LedgerEntry]] = {}
        self.won: dict[str, list[LedgerEntry]] = {}
        for entry in trace.ledger:
            self.taken_out.setdefault(entry.row_id, []).append(entry)
            self.won.setdefault(entry.winner or "", []).append(entry)
        self.siblings: dict[str, list[Sibling]] = {}
        for sibling in trace.siblings:
            self.siblings.setdefault(sibling.beside[0], []).append(sibling)
        self.drawn: set[str] = set()

    def draw(self) -> Tree:
        """Return the tree of the requested row."""
        tree = Tree(self._label(self.start.row_id))
        self._follow(tree, tree, self.start.row_id)
        return tree

    def _follow(self, chain: Tree, node: Tree, row_id: str) -> None:
        """Add the next rows to a row's chain, or below its node if there are several."""
        while row_id not in self.drawn:
            self.drawn.add(row_id)
            self._surroundings(node, row_id)
            beyond = self.next.get(row_id, [])
            if len(beyond) != 1:
                for other in beyond[:BRANCHES]:
                    branch = node.add(self._label(other))
                    self._follow(branch, branch, other)
                _more(node, len(beyond) - BRANCHES)
                return
            [row_id] = beyond
            node = chain.add(self._label(row_id))

    def _label(self, row_id: str) -> RenderableType:
        row = self.rows.get(row_id)
        if row is None:
            return Text.assemble((_short(row_id), "bold"), ("  not in the newest tables", "yellow"))
        label = Text.assemble((row.stage, "bold cyan"), "  ", (_short(row_id), "dim"))
        if row_id in self.drawn:
            return label.append("  (above)", "dim")
        parents = [self.rows[name] for name in row.parents if name in self.rows]
        before = {name for parent in parents for name in parent.parents if name in self.rows}
        known = [parent.values for parent in (*parents, *(self.rows[name] for name in sorted(before)))]
        return _told(label, row.values if row is self.start else _without(row.values, *known))

    def _surroundings(self, node: Tree, row_id: str) -> None:
        """Add below a row what was dropped from it, what lost to it, and what became of its siblings."""
        if row_id not in self.rows:
            return
        row = self.rows[row_id]
        _hang(node, [_entry(entry, row.values) for entry in self.taken_out.get(row_id, [])])
        _hang(node, [_entry(entry, row.values, won=True) for entry in self.won.get(row_id, [])])
        if siblings := self.siblings.get(row_id):
            _hang(node.add(_fates(row.stage, siblings)), [_sibling(sibling, row.values) for sibling in siblings])


def _entry(entry: LedgerEntry, known: Mapping[str, Any], *, won: bool = False) -> RenderableType:
    line = Text.assemble(("won over ", "dim"), (_short(entry.row_id), "dim"), "  ") if won else Text()
    line.append(_departure(entry), "yellow")
    if entry.winner and not won:
        line.append(f", in favour of {_short(entry.winner)}", "yellow")
    return _told(line, _without(entry.payload, known) if isinstance(entry.payload, Mapping) else {})


def _sibling(sibling: Sibling, known: Mapping[str, Any]) -> RenderableType:
    fates = [*map(_departure, sibling.ledger), *(f"kept to {stage}" for stage in sibling.reached)]
    line = Text.assemble((_short(sibling.row.row_id), "dim"), "  ", ("; ".join(fates), "yellow"))
    return _told(line, _without(sibling.row.values, known))


def _fates(stage: str, siblings: Sequence[Sibling]) -> Text:
    """Return how many siblings there are and what became of them."""
    fates: Counter[str] = Counter()
    for sibling in siblings:
        fates.update(dict.fromkeys(map(_departure, sibling.ledger), 1))
        fates.update(f"kept to {reached}" for reached in sibling.reached)
    told = ", ".join(f"{count} {fate}" for fate, count in fates.most_common())
    others = f"{len(siblings)} other{'s' * (len(siblings) > 1)} of {stage}"
    return Text.assemble((others, "magenta"), f": {told}")


def _departure(entry: LedgerEntry) -> str:
    why = ": ".join(_one_line(part) for part in (entry.rule, entry.reason) if part)
    return f"{entry.kind} by {entry.stage}, {why}"


def _hang(node: Tree, lines: Sequence[RenderableType]) -> None:
    for line in lines[:SHOWN]:
        node.add(line)
    _more(node, len(lines) - SHOWN)


def _more(node: Tree, hidden: int) -> None:
    if hidden > 0:
        node.add(Text(f"and {hidden:,} more", "dim"))


def _without(values: Mapping[str, Any], *known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that none of the known rows has under the same name."""
    return {
        name: value
        for name, value in values.items()
        if not any(name in others and others[name] == value for others in known)
    }


def _told(line: Text, values: Mapping[str, Any]) -> RenderableType:
    """Return a line with the informative names and figures, and a line for each longer text."""
    texts = []
    for name, value in values.items():
        shown = _shown(value)
        if _is_text(value) and len(shown) > LONGEST_NAME:
            texts.append(Text.assemble((f"{name} ", "dim"), shown, no_wrap=True, overflow="ellipsis"))
        elif shown:
            line.append(f"  {name}{' ' if isinstance(value, list) else '='}", "dim").append(shown)
    return Group(line, *texts)


def _is_text(value: Any) -> bool:
    """Return whether a value is a text, or the turns of a conversation."""
    turns = isinstance(value, list) and all(isinstance(item, Mapping) and "role" in item for item in value)
    return isinstance(value, str) or turns


def _shown(value: Any) -> str:
    """Return a value for display, empty if uninformative: nulls, ids, seeds, vectors."""
    if isinstance(value, str):
        return "" if _ROW_ID.fullmatch(value) else _one_line(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value) if abs(value) < LARGEST_FIGURE else ""
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= SMALLEST_ROUNDED or not value else f"{value:.1e}"
    if isinstance(value, Mapping):
        return _pair(value)
    if isinstance(value, list) and not any(isinstance(item, int | float) for item in value):
        items = [shown for item in value if (shown := _shown(item))]
        return ", ".join(items[:ITEMS]) + (f" and {len(items) - ITEMS} more" if len(items) > ITEMS else "")
    return ""


def _pair(value: Mapping[str, Any]) -> str:
    """Return a label with its figure, such as `safety/theft 0.83`; a name that begins another is given once."""
    names = [item for item in value.values() if isinstance(item, str)]
    names = [name for name in names if not any(other.startswith(f"{name}/") for other in names)]
    figures = [_shown(item) for item in value.values() if not isinstance(item, str)]
    return " ".join(part for part in ("/".join(map(_one_line, names)), *figures) if part)


def _one_line(text: str) -> str:
    return " ".join(text.translate(_CONTROL).split())


def _short(row_id: str) -> str:
    return row_id[:SHORT_ID]
