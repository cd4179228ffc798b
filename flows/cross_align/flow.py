"""Meme abuse with cultural knowledge: CROSS-ALIGN+ (after arXiv 2602.03822).

What a meme mentions is looked up in sources of knowledge, and its text judged with and without the facts, and with
those of another meme. A low-rank adapter learns from hard pairs; explanations cite the evidence that the verdict rests
on, and are measured by taking it away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from normloom.core.models.needs import Needs
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Stage
from normloom.flows.cross_align import summary
from normloom.flows.cross_align.config import CrossAlignConfig
from normloom.settings.faces.about import About
from normloom.settings.system import System
from normloom.steps.products import files_of
from normloom.tasks.cross_align.checks import check_explanations, check_knowledge
from normloom.tasks.cross_align.evidence import delete_evidence, without_each
from normloom.tasks.cross_align.explanations import explanations, faithfulness
from normloom.tasks.cross_align.figures import faithfulness_figures, link_figures, verdict_figures
from normloom.tasks.cross_align.memes import draw_pictures, read_labelled_memes
from normloom.tasks.cross_align.reword import reword
from normloom.tasks.cross_align.texts import keep_apart, near_memes, settle_texts, unread
from normloom.tasks.cross_align.training.adapter import adapter
from normloom.tasks.cross_align.training.hard_pairs import hard_pairs
from normloom.tasks.cross_align.training.lora import encode_tuned, tune
from normloom.tasks.cross_align.variants import variants
from normloom.tasks.cross_align.verdicts import verdicts
from normloom.tasks.knowledge.facts import facts
from normloom.tasks.knowledge.index import knowledge
from normloom.tasks.knowledge.mentions import mentions
from normloom.tasks.media.encode import encode_texts
from normloom.tasks.media.read_media import read_media
from normloom.tasks.media.read_text import read_text


def cross_align(config: CrossAlignConfig) -> list[Stage]:
    """Return the last stages of the study, the table of explanations first."""
    sources = config.knowledge
    known = knowledge(
        sources,
        conceptnet=sources.located("conceptnet"),
        wikidata=sources.located("wikidata"),
        wordnet=sources.located_wordnet,
        lexicon=sources.located("lexicon"),
        symbols=sources.located("symbols"),
    )
    texts, media = _texts(config)
    near = near_memes(texts, config.apart, media)
    items = keep_apart(texts, near)
    named = mentions(items, config.mentions, knowledge=files_of(known))
    told = facts(named, config.facts, knowledge=files_of(known))
    said = variants(items, told)
    encode: Callable[..., Stage] = partial(_encoded, config=config)
    vectors = encode(said, name="vectors")
    pairs = hard_pairs(items, vectors)
    if (base := config.models.tuned) is not None:
        encode = _tuned(config, base, items, said, pairs)
        vectors = encode(said, name="tuned_vectors")
        pairs = hard_pairs(items, vectors, name="tuned_pairs")
    trained = adapter(items, config.adapter, vectors, pairs)
    judged = verdicts(items, vectors, adapters=files_of(trained))
    lacking = encode(without_each(items, named, told), name="without_vectors")
    explained = explanations(items, config.explain, named, told, judged, lacking, adapters=files_of(trained))
    deleted = delete_evidence(explained, config.delete, items, named, told)
    deleted_vectors = encode(deleted, name="deletion_vectors")
    faithful = faithfulness(explained, deleted, judged, deleted_vectors, adapters=files_of(trained))
    measured = faithfulness_figures(faithful)
    if (writer := config.models.writer) is not None:
        explained = reword(explained, config.reword, writer, writer=writer.model)
    return [
        explained,
        verdict_figures(judged),
        measured,
        link_figures(items, named),
        check_knowledge(items, named, told, said, pairs, trained, most=config.facts.most),
        check_explanations(explained, named, told, judged, measured),
    ]


def _texts(config: CrossAlignConfig) -> tuple[Stage, Stage | None]:
    """Return the memes with their texts, and their pictures if there are some."""
    source = config.source
    pictures, drawn = source.pictures, source.path is None
    memes = read_labelled_memes(source, source=source.memes, pictures=pictures is not None)
    if pictures is None and not drawn:
        return settle_texts(memes), None
    media = draw_pictures(memes) if pictures is None else read_media(config.media, source=pictures)
    read = read_text(unread(memes, config.reading, media), config.reading, media=files_of(media), caption="text")
    return settle_texts(memes, media, read), media


def _encoded(texts: Stage, *, config: CrossAlignConfig, name: str) -> Stage:
    encoder = config.models.encoder
    return encode_texts(texts, config.encode, encoder, encoder=encoder.model, name=name)


def _tuned(config: CrossAlignConfig, base: ModelSpec, items: Stage, said: Stage, pairs: Stage) -> Callable[..., Stage]:
    """Return what encodes texts by LoRA adapters that are trained on the pairs, one for each task and variant."""
    needs = Needs(gpus=base.gpus or 0, threads=base.threads or 1)
    trained = replace(tune(items, config.tune, said, pairs, base=base), needs=needs)

    def encode(texts: Stage, *, name: str) -> Stage:
        encoded = encode_tuned(texts, config.tune, items, base=base, tuned=files_of(trained), name=name)
        return replace(encoded, needs=needs)

    return encode


CROSS_ALIGN = System(
    name="cross_align",
    title="CROSS-ALIGN+",
    config=CrossAlignConfig,
    flow=cross_align,
    sections=summary.sections,
    about=About.of("cross_align"),
)
