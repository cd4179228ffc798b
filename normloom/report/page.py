"""The page of a report: one file of HTML that needs nothing else, drawn from the report's data alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import singledispatch
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from normloom.report.blocks import Block, Cell, Example, Marked, Medium, Note, Plot, Table, Tiles, rounded
from normloom.report.report import SECTIONS

FOLDER = Path(__file__).parent


def page(report: Mapping[str, Any]) -> str:
    """Return the page of what `report` returned; it draws itself with plotly.js, which it holds."""
    from plotly.offline import get_plotlyjs

    drawers = {section.name: section.draw for section in SECTIONS}
    plots: dict[str, Mapping[str, Any]] = {}
    sections, links = [], []
    for section in report["sections"]:
        name, title = section["name"], escape(section["title"])
        blocks = "".join(_block(block, plots) for block in drawers[name](section["data"]))
        sections.append(f'<section id="{name}"><h2>{title}</h2><div class="blocks">{blocks}</div></section>')
        links.append(f'<a href="#{name}" title="{title}">{name.capitalize()}</a>')
    return Template((FOLDER / "page.html").read_text()).substitute(
        title=escape(report["title"]),
        build=escape(report["build"]),
        links="".join(links),
        sections="".join(sections),
        plots=json.dumps(plots, ensure_ascii=False).replace("<", "\\u003c"),
        style=(FOLDER / "page.css").read_text(),
        script=(FOLDER / "page.js").read_text(),
        plotly=get_plotlyjs(),
    )


def _block(block: Block, plots: dict[str, Mapping[str, Any]]) -> str:
    if not isinstance(block, Plot):
        return _html(block)
    name = f"plot-{len(plots)}"
    plots[name] = block.figure
    title, position = escape(block.title), f'<div id="{name}" class="plot"></div>'
    return f'<figure class="card {block.width}"><figcaption>{title}</figcaption>{position}</figure>'


@singledispatch
def _html(block: Block) -> str:
    raise TypeError(f"cannot show a {type(block).__name__}")


@_html.register
def _note(block: Note) -> str:
    return f'<p class="whole{" warning" if block.warning else ""}">{escape(block.text)}</p>'


@_html.register
def _tiles(block: Tiles) -> str:
    tiles = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in block.values.items()
    )
    return f'<dl class="tiles whole">{tiles}</dl>'


@_html.register
def _table(block: Table) -> str:
    columns = zip(*block.rows, strict=True) if block.rows else [()] * len(block.headings)
    kinds = [' class="number"' if _numeric(column) else "" for column in columns]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, block.headings, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{_text(cell)}</td>' for kind, cell in zip(kinds, row, strict=True))}</tr>"
        for row in block.rows
    )
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    title = escape(block.title)
    if block.folded:
        return f'<details class="card whole"><summary>{title}</summary>{table}</details>'
    return f'<figure class="card whole"><figcaption>{title}</figcaption>{table}</figure>'


@_html.register
def _example(block: Example) -> str:
    title = f"<figcaption>{escape(block.title)}</figcaption>"
    return f'<figure class="card whole">{title}{_told(block.facts, "facts")}{_told(block.texts, "texts")}</figure>'


@_html.register
def _marked(block: Marked) -> str:
    title = escape(block.title)
    picture = _veiled(title, escape(block.source)) if block.source else ""
    pieces = "".join(_piece(text, name, strong=name in block.strong) for text, name in block.pieces)
    told = f'<p class="marked">{pieces}</p>{_told(block.facts, "facts")}'
    beside = f'<div class="beside">{picture}<div>{told}</div></div>'
    texts = _told(block.texts, "texts")
    return f'<figure class="card whole"><figcaption>{title}</figcaption>{beside}{texts}</figure>'


@_html.register
def _medium(block: Medium) -> str:
    title, source = escape(block.title), escape(block.source)
    if block.kind == "image":
        shown = _veiled(title, source)
    else:
        shown = (
            f'<audio controls preload="none" src="{source}"></audio>' if source else "<p>too long to be held here</p>"
        )
    told = _told(block.facts, "facts")
    return f'<figure class="card third"><figcaption>{title}</figcaption>{shown}{told}</figure>'


def _told(values: Mapping[str, str], kind: str) -> str:
    inside = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in values.items())
    return f'<dl class="{kind}">{inside}</dl>'


def _veiled(title: str, source: str) -> str:
    """Return an image that is blurred until it is clicked; both texts are escaped."""
    return (
        f'<label class="veiled"><input type="checkbox" aria-label="Show {title}">'
        f'<img src="{source}" alt="{title}"></label>'
    )


def _piece(text: str, name: str | None, *, strong: bool) -> str:
    if name is None:
        return escape(text)
    kind = ' class="strong"' if strong else ""
    return f"<mark{kind}>{escape(text)}<sup>{escape(name)}</sup></mark>"


def _numeric(column: Sequence[Cell]) -> bool:
    return not any(isinstance(cell, str) for cell in column) and any(cell is not None for cell in column)


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return escape(cell)
    return f"{cell:,}" if isinstance(cell, int) else escape(rounded(cell))
