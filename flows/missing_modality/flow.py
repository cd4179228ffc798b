"""Harmful memes when the text or the picture is missing (after arXiv 2602.01101, on the layout of Multi3Hate).

Text and picture are projected into one space and read by one block, so that either is enough. Side by side with it:
both modalities concatenated, late fusion, text only, picture only. Text is hidden step by step, then pictures; in the
natural case the text is what OCR reads.
"""

from __future__ import annotations

from normloom.core.stage import Stage
from normloom.flows.missing_modality import summary
from normloom.flows.missing_modality.config import MissingModalityConfig
from normloom.settings.faces.about import About
from normloom.settings.system import System
from normloom.steps.products import files_of
from normloom.tasks.cultural.memes import read_memes
from normloom.tasks.media.encode import encode_images, encode_texts
from normloom.tasks.media.near_images import near_images
from normloom.tasks.media.read_media import read_media
from normloom.tasks.media.read_text import read_text
from normloom.tasks.missing_modality.checks import check_study
from normloom.tasks.missing_modality.curves import curves, ocr_figures
from normloom.tasks.missing_modality.drawn import draw_memes
from normloom.tasks.missing_modality.fits import fits
from normloom.tasks.missing_modality.items import pair_items
from normloom.tasks.missing_modality.leak import leak_figures
from normloom.tasks.missing_modality.predictions import predictions
from normloom.tasks.missing_modality.sampled import sampled
from normloom.tasks.missing_modality.scenarios import ocr_scenario, scenarios


def missing_modality(config: MissingModalityConfig) -> list[Stage]:
    """Return the last stages of the study, the table of predictions first."""
    memes = read_memes(config.source, source=config.source.memes, countries=config.countries)
    pictures = config.source.pictures
    media = draw_memes(memes) if pictures is None else read_media(config.media, source=pictures)
    items = pair_items(memes, config.items, media)
    models, files = config.models, files_of(media)
    text = encode_texts(items, config.encode, models.text, encoder=models.text.model)
    image = encode_images(items, config.encode, models.image, media=files, encoder=models.image.model)
    seen = scenarios(items, config.missing)
    trained = fits(items, config.fits, text, image)
    judged = predictions(seen, items, text, image, fits=files_of(trained))
    ends = [
        judged,
        curves(judged, items, seen),
        leak_figures(items, image),
        check_study(items, seen, trained, text, image),
        near_images(media, config.near),
    ]
    if config.ocr.per_language == 0:
        return ends
    read = read_text(sampled(items, config.ocr), config.ocr, media=files, caption="text")
    read_vectors = encode_texts(
        read, config.encode, models.text, column="ocr_text", encoder=models.text.model, name="ocr_vectors"
    )
    natural = predictions(
        ocr_scenario(read), items, text, image, read_vectors, fits=files_of(trained), name="ocr_predictions"
    )
    return [*ends, ocr_figures(natural, items, judged, read)]


MISSING_MODALITY = System(
    name="missing_modality",
    title="Missing modality",
    config=MissingModalityConfig,
    flow=missing_modality,
    sections=summary.sections,
    about=About.of("missing_modality"),
)
