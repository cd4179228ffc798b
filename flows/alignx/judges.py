"""What the replies of all systems are worth on each axis, and which axis pays for which."""

from __future__ import annotations

from normloom.core.stage import Stage
from normloom.flows.alignx.config import AlignxConfig
from normloom.readers import locate
from normloom.tasks.tradeoff.axis_figures import axis_figures
from normloom.tasks.tradeoff.compared import compare, judge_wins
from normloom.tasks.tradeoff.conflict import conflict
from normloom.tasks.tradeoff.nearness import judge_nearest, nearness
from normloom.tasks.tradeoff.recorded_wins import read_judged
from normloom.tasks.tradeoff.safety import judge_informative, judge_safety, score_safety


def judged(replies: list[Stage], rows: Stage, config: AlignxConfig) -> list[Stage]:
    """Return what each judge says of each reply: those that need no model first."""
    encoder = config.models.encoder
    near = nearness(replies, config.nearness, rows, encoder, encoder=encoder.model)
    tables = [
        judge_nearest(near),
        judge_safety(score_safety(replies, config.safety, rows), config.unsafe),
        judge_informative(replies),
    ]
    for judge, model in config.models.judges.items():
        compared = compare(replies, config.compare, rows, model, judge=judge)
        tables.append(judge_wins(compared, judge=judge))
    return tables


def recorded(config: AlignxConfig) -> list[Stage]:
    """Return the judgements that were published with replies, if the settings name some."""
    source = config.source
    return [read_judged(source=locate(source.judged), judge=source.judged_by)] if source.judged else []


def trade_offs(replies: list[Stage], rows: Stage, config: AlignxConfig) -> list[Stage]:
    """Return the figures of each axis, and how axes pull apart."""
    told = [*judged(replies, rows, config), *recorded(config)]
    return [axis_figures(told), conflict(told)]
