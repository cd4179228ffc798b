"""Plots of figures under `normloom.schemas.tables.FIGURES`, chosen by metric."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from normloom.core.rows.text import counted
from normloom.report.blocks import Plot
from normloom.report.plots import Scale, Series, bars, heat_map, lines, scale_of

Figure = Mapping[str, Any]

NAMES = {
    "ds": "Demographic sensitivity",
    "dpd": "Demographic parity difference",
    "eod": "Equalized odds difference",
    "icc2_1": "ICC(2,1)",
    "icc2_k": "ICC(2,k)",
    "alpha": "Krippendorff's alpha",
    "correlation": "Mean correlation of raters",
    "share_yes": "Share of Yes",
    "total_variation": "Total variation between groups",
    "coverage": "Coverage",
    "ffr": "False failure rate",
    "as": "Alignment score",
    "alignment_rate": "Alignment rate",
    "trade_off": "Trade-off",
    "misaligned_rate": "Share that fails a dimension",
    "on_task_rate": "Share on task",
    "unreadable": "Share of unreadable verdicts",
    "unusable": "Share of unusable responses",
    "win_rate_valid": "Win rate, judged replies",
    "win_rate_all": "Win rate, failures as losses",
    "unsafe_valid": "Unsafe share, judged replies",
    "unsafe_all": "Unsafe share, failures as unsafe",
    "truthful_informative_valid": "Truthful and informative, judged replies",
    "truthful_informative_all": "Truthful and informative, failures as neither",
    "good_valid": "Nearest to a good reply, judged replies",
    "axis_correlation": "Correlation of axes",
    "one_up_other_down": "One axis up, the other down",
    "paid": "First axis up, second down",
    "ece": "Expected calibration error",
    "ece_change": "Expected calibration error, change",
    "brier": "Brier score",
    "brier_change": "Brier score, change",
    "temperature": "Temperature",
    "labels_kept": "Labels kept",
    "prompts_labelled": "Prompts with a label",
    "removed": "Rows removed",
    "pairs": "Near pairs",
    "chance_pairs": "Pairs expected by chance",
}
FAMILIES = {
    **dict.fromkeys(("icc2_1", "icc2_k", "alpha", "correlation"), "Agreement of raters"),
    **dict.fromkeys(("coverage", "ffr", "as"), "Detection of misaligned responses"),
}
REMARKS = ("icc_left_out", "undefined_pairs")  # what other figures leave out; the table has them
BETWEEN_GROUPS = ("ds", "dpd", "eod", "share_yes", "total_variation")
SWEPT = ("delta", "tau")
OVERALL = "overall"
CROSSED = " x "
HEAT_MAPS = ("trade_off", "groups", "crossed")


def named(metric: str) -> str:
    """Return the name of a metric as it is read."""
    return NAMES.get(metric, metric)


def heat_scale(figures: Iterable[Figure]) -> Scale:
    """Return the scale that the heat maps of all these figures share."""
    return scale_of(each["value"] for each in figures if each["value"] is not None and _kind(each) in HEAT_MAPS)


def plots(figures: Sequence[Figure], scale: Scale) -> Iterator[Plot]:
    """Yield the plots of figures that have values; heat maps have the given scale."""
    kinds = _grouped(figures, _kind)
    for group in _grouped(kinds["sweep"], lambda each: (each["metric"], each["slice_by"])).values():
        yield _sweep(group)
    for group in _grouped(kinds["trade_off"], lambda each: (each["of"], each["slice_by"], each["slice"])).values():
        yield _trade_offs(group, scale)
    for group in _grouped(kinds["groups"], lambda each: (each["metric"], each["slice_by"])).values():
        yield _groups(group, scale)
    for group in _grouped(kinds["crossed"], lambda each: (each["metric"], each["slice_by"], each["of"])).values():
        yield _crossed(group, scale)
    for group in _grouped(kinds["bars"], lambda each: (_family(each["metric"]), each["slice_by"])).values():
        if group[0]["slice_by"] == OVERALL or len({each["of"] for each in group}) == 1:
            yield _bars(group)
        else:
            for same in _grouped(group, lambda each: each["metric"]).values():
                yield _bars(same)


def _kind(figure: Figure) -> str:
    if figure["slice_by"] in SWEPT and _number(figure["slice"]) is not None:
        return "sweep"
    if figure["metric"] == "trade_off" and " to " in figure["axis"]:
        return "trade_off"
    if figure["metric"] in REMARKS:
        return "remark"
    if figure["metric"] in BETWEEN_GROUPS:
        return "crossed" if CROSSED in figure["slice_by"] else "groups"
    return "bars"


def _sweep(figures: Sequence[Figure]) -> Plot:
    first = figures[0]
    points = {
        name: sorted((float(each["slice"]), each["value"]) for each in group)
        for name, group in _grouped(figures, lambda each: _joined(each["of"], each["axis"])).items()
    }
    title = f"{named(first['metric'])} over {first['slice_by']}"
    return lines(title, points, axis=first["slice_by"], value=named(first["metric"]))


def _trade_offs(figures: Sequence[Figure], scale: Scale) -> Plot:
    """Draw the matrix of one model and slice: of what passes the row's dimension, the share that fails the column's."""
    first = figures[0]
    values = {tuple(each["axis"].split(" to ", 1)): each["value"] for each in figures}
    names = list(dict.fromkeys(name for way in values for name in way))
    matrix = [[values.get((row, column)) for column in names] for row in names]
    where = "" if first["slice_by"] == OVERALL else f", {first['slice']}"
    return heat_map(
        f"{named('trade_off')} of {first['of']}{where}: passes the row, fails the column",
        names,
        names,
        matrix,
        scale=scale,
    )


def _groups(figures: Sequence[Figure], scale: Scale) -> Plot:
    """Draw axis by rater if all rows are measured, otherwise slice by rater and axis."""
    first, overall = figures[0], figures[0]["slice_by"] == OVERALL
    one = len({each["of"] for each in figures}) == 1
    if overall:
        cells = {(each["axis"], each["of"]): each["value"] for each in figures}
        return _matrix(named(first["metric"]), cells, scale)
    cells = {(each["slice"], _joined("" if one else each["of"], each["axis"])): each["value"] for each in figures}
    of = f" of {first['of']}" if one else ""
    return _matrix(f"{named(first['metric'])}{of} by {first['slice_by']}", cells, scale)


def _crossed(figures: Sequence[Figure], scale: Scale) -> Plot:
    """Draw the groups of one column by those of another; a slice is `group x group`."""
    first = figures[0]
    cells = {each["slice"].partition(CROSSED)[::2]: each["value"] for each in figures}
    return _matrix(f"{named(first['metric'])} of {first['of']} by {first['slice_by']}", cells, scale)


def _matrix(title: str, cells: Mapping[tuple[str, str], float], scale: Scale) -> Plot:
    """Draw values by row and column."""
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    return heat_map(
        title, columns, rows, [[cells.get((row, column)) for column in columns] for row in rows], scale=scale
    )


def _bars(figures: Sequence[Figure]) -> Plot:
    """Draw bars with their intervals: a category for each model if all rows are measured, else for each slice."""
    slice_by, overall = figures[0]["slice_by"], figures[0]["slice_by"] == OVERALL
    one = len({each["of"] for each in figures}) == 1
    categories = list(dict.fromkeys(each["of" if overall else "slice"] for each in figures))

    def series_of(each: Figure) -> str:
        return _joined(named(each["metric"]), "" if overall or one else each["of"], each["axis"])

    series = []
    for name, group in _grouped(figures, series_of).items():
        known = {each["of" if overall else "slice"]: each for each in group}
        there = [known.get(category, {}) for category in categories]
        values, low, high = ([each.get(bound) for each in there] for bound in ("value", "low", "high"))
        series.append(Series(name=name, values=values, low=low, high=high, notes=[_note(each) for each in there]))
    metrics = {each["metric"] for each in figures}
    title = _family(figures[0]["metric"]) if len(metrics) > 1 else named(*metrics)
    where = f" of {figures[0]['of']}" if one and not overall else ""
    by = "" if overall else f" by {slice_by}"
    return bars(f"{title}{where}{by}", categories, series, axis="")


def _note(figure: Figure) -> str:
    if not figure:
        return "undefined"
    interval = f"[{figure['low']:.3f}, {figure['high']:.3f}], " if None not in {figure["low"], figure["high"]} else ""
    spread = f"spread over runs {figure['spread']:.3f}, " if figure["spread"] is not None else ""
    return f"{interval}{spread}{counted(figure['rows'])}"


def _family(metric: str) -> str:
    return FAMILIES.get(metric, named(metric))


def _joined(*names: str) -> str:
    return " · ".join(name for name in names if name)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _grouped(figures: Iterable[Figure], key: Callable[[Figure], Hashable]) -> defaultdict[Any, list[Figure]]:
    groups: defaultdict[Any, list[Figure]] = defaultdict(list)
    for figure in figures:
        groups[key(figure)].append(figure)
    return groups
