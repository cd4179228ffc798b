"""Two-stage rejection sampling: generators draw, a judge accepts; what is missing is diagnosed and tried again."""

from __future__ import annotations

from normloom.flows.savacu_config import SavacuConfig
from normloom.stage import Stage
from normloom.tasks.generate import generate
from normloom.tasks.judge import judge, score
from normloom.tasks.resample import ShortfallSearch, diagnose, shortfall


def rejection_sampling(prompts: Stage, config: SavacuConfig) -> list[Stage]:
    """Return the judged candidates of each round; rounds are stages, so that each loads a model once."""
    models, generators = config.models, config.models.generators
    judged: list[Stage] = []
    asked = prompts
    for round in range(config.rounds + 1):
        if round > 0:
            missing = shortfall(prompts, judged, arguments=ShortfallSearch(generators=tuple(generators)), round=round)
            asked = diagnose(
                missing, arguments=config.diagnosing, model=models.judge, round=round, part_rows=config.judge.part_rows
            )
        candidates = [
            generate(asked, arguments=config.generation(name, round), model=model, part_rows=config.generate.part_rows)
            for name, model in generators.items()
        ]
        scores = score(
            candidates, arguments=config.scoring, model=models.judge, round=round, part_rows=config.judge.part_rows
        )
        judged.append(judge(candidates, scores, arguments=config.judging, round=round))
    return judged
