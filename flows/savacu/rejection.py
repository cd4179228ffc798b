"""Two-stage rejection sampling: generators draw, a judge accepts; what is missing is diagnosed and tried again."""

from __future__ import annotations

from normloom.core.stage import Stage
from normloom.flows.savacu.config import SavacuConfig
from normloom.tasks.rejection.generate import generate
from normloom.tasks.rejection.judge import judge, score
from normloom.tasks.rejection.resample import diagnose, shortfall


def rejection_sampling(prompts: Stage, config: SavacuConfig) -> list[Stage]:
    """Return the judged candidates of each round; rounds are stages, so that each loads a model once."""
    generators, judging = config.models.generators, config.models.judge
    judged: list[Stage] = []
    asked = prompts
    for round in range(config.rounds + 1):
        if round > 0:
            missing = shortfall(prompts, *judged, generators=tuple(generators), name=f"shortfall_{round}")
            asked = diagnose(missing, config.judge, judging, name=f"diagnose_{round}")
        candidates = [
            generate(asked, config.generate, model, generator=name, round=round) for name, model in generators.items()
        ]
        scores = score(candidates, config.judge, judging, name=f"score_{round}")
        judged.append(judge(candidates, config.judge, scores, name=f"judge_{round}"))
    return judged
