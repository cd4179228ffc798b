"""Whose norms does a model follow? The same memes in several languages, judged by models and by people of several
countries (arXiv 2602.07497, on the layout of Multi3Hate, arXiv 2411.03888).

Each model is asked with and without an example, in the meme's language and in English, about the text and its
translation, with the options in both orders; models that see are shown its picture.
"""

from __future__ import annotations

from normloom.core.stage import Stage
from normloom.flows.cross_cultural.config import CrossCulturalConfig
from normloom.readers import holding, locate
from normloom.settings.faces.about import About
from normloom.settings.system import System
from normloom.steps.products import files_of
from normloom.tasks.cultural.answers import REPLY, answer_scored, answer_written, read_answers
from normloom.tasks.cultural.cell_figures import cell_figures
from normloom.tasks.cultural.exemplars import back_check, encode, exemplars
from normloom.tasks.cultural.grid import grid
from normloom.tasks.cultural.group_figures import country_figures, follow_figures
from normloom.tasks.cultural.memes import judgements, meme_items, read_memes
from normloom.tasks.cultural.parse import parse_letters
from normloom.tasks.media.read_media import read_media
from normloom.tasks.missing_modality.drawn import draw_memes


def cross_cultural(config: CrossCulturalConfig) -> list[Stage]:
    """Return the last stages of the evaluation, the table of answers first."""
    source, ratings = config.source, config.source.located_ratings
    memes = read_memes(source, source=source.memes, countries=config.countries)
    judged = judgements(memes, ratings=ratings)
    replies, also = [], []
    if source.replies:
        replies.append(read_answers(memes, source=holding(locate(source.replies), REPLY), entrant=source.replies_of))
    if config.models.entrants:
        items = meme_items(memes, config.items, countries=config.countries)
        vectors = encode(items, config.encode, config.models.encoder)
        media = _media(memes, config) if config.ask.look else None
        questions = grid(items, config.ask, exemplars(items, vectors), *([media] if media else []))
        replies += [_answered(questions, name, config, media) for name in config.models.entrants]
        also.append(back_check(items, vectors))
    answers = parse_letters(replies)
    return [
        answers,
        cell_figures(answers, judged, native=config.native),
        follow_figures(answers, judged, reference=config.reference),
        country_figures(judged, ratings=ratings),
        *also,
    ]


def _media(memes: Stage, config: CrossCulturalConfig) -> Stage:
    pictures = config.source.pictures
    return draw_memes(memes) if pictures is None else read_media(config.media, source=pictures)


def _answered(questions: Stage, entrant: str, config: CrossCulturalConfig, media: Stage | None) -> Stage:
    model, files = config.models.entrants[entrant], files_of(media) if media else None
    if config.by == "scored":
        return answer_scored(questions, config.scored, model, entrant=entrant, media=files)
    return answer_written(questions, config.written, model, entrant=entrant, media=files)


CROSS_CULTURAL = System(
    name="cross_cultural",
    title="Cross-cultural evaluation",
    config=CrossCulturalConfig,
    flow=cross_cultural,
    about=About.of("cross_cultural"),
)
