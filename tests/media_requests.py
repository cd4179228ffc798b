"""Requests that may hold media, as tests ask them of tiny models."""

from __future__ import annotations

from normloom.core.content import Content
from normloom.models import GenerateRequest, Sampling, ScoreRequest

INSTRUCTION = "You judge texts."
QUESTIONS = ("Is it?", "Cats?")
ANSWERS = ("Yes", "No")


def scoring(context: Content, *questions: str, instruction: str = INSTRUCTION) -> ScoreRequest:
    return ScoreRequest(instruction=instruction, context=context, questions=questions or QUESTIONS, answers=ANSWERS)


def writing(prompt: Content, **sampling: float) -> GenerateRequest:
    settings = Sampling.model_validate({"max_tokens": 8, **sampling})
    return GenerateRequest(instruction=INSTRUCTION, prompt=prompt, seeds=(1, 2), sampling=settings)
