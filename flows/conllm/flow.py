"""ConLLM: real recordings told from generated ones (after arXiv 2601.17530).

A recording is seen in several views. A contrastive stage brings the views of real recordings together and pushes fakes
away; GPT-style blocks refine what it makes and are trained with a classifier. One generator and some speakers are held
out at a time.
"""

from __future__ import annotations

from dataclasses import replace

from normloom.core.errors import ConfigError
from normloom.core.models.needs import Needs
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Stage
from normloom.flows.conllm import summary
from normloom.flows.conllm.config import ConllmConfig
from normloom.settings.faces.about import About
from normloom.settings.system import System
from normloom.steps.products import files_of
from normloom.tasks.deepfakes.aligners import aligners
from normloom.tasks.deepfakes.checks import check_detection
from normloom.tasks.deepfakes.cost import cost
from normloom.tasks.deepfakes.drawn_sounds import KEPT, draw_sounds
from normloom.tasks.deepfakes.items import held_items
from normloom.tasks.deepfakes.pairs import pairs
from normloom.tasks.deepfakes.recordings import builtin_recordings, read_recordings
from normloom.tasks.deepfakes.refiners import VARIANTS, refiners
from normloom.tasks.deepfakes.scores import ALL_VIEWS, alone, baseline_scores, scores
from normloom.tasks.deepfakes.spoof_figures import spoof_figures
from normloom.tasks.media.encode import encode_sounds, encode_videos
from normloom.tasks.media.read_media import read_media


def conllm(config: ConllmConfig) -> list[Stage]:
    """Return the last stages of the study, the table of scores first."""
    recordings, media, key = _read(config)
    models, places = config.models, files_of(media)
    named = {**models.sound, **models.frames}
    views, frames = tuple(named), tuple(models.frames)
    against = config.against or alone(views[0])
    known = [*VARIANTS, *map(alone, views), *([ALL_VIEWS] if len(views) > 1 else [])]
    if against not in known:
        raise ConfigError(f"against: unknown variant {against!r}; available: {', '.join(known)}")
    kinds = tuple(kind for kind, some in (("sound", models.sound), ("image", models.frames)) if some)
    items = held_items(recordings, config.items, media, key=key, kinds=kinds)
    vectors = [
        (encode_videos if view in frames else encode_sounds)(
            items, config.encode, model, media=places, encoder=model.model, name=f"{view}_vectors"
        )
        for view, model in named.items()
    ]
    paired = pairs(items, config.pairs, views=views)
    aligned = _on_gpu(aligners(items, config.align, paired, *vectors, views=views), models.refiner)
    fits = _on_gpu(
        refiners(items, config.refine, *vectors, views=views, aligned=files_of(aligned), refiner=models.refiner),
        models.refiner,
    )
    weights = files_of(fits)
    judged = scores(items, config.refine, *vectors, views=views, fits=weights, refiner=models.refiner)
    baselines = baseline_scores(items, *vectors, views=views)
    return [
        judged,
        spoof_figures([judged, baselines], against=against),
        check_detection(items, paired, fits, aligned, judged, *vectors),
        cost(
            items,
            config.refine,
            *vectors,
            model=named,
            views=views,
            frames=frames,
            media=places,
            fits=weights,
            refiner=models.refiner,
        ),
    ]


def _read(config: ConllmConfig) -> tuple[Stage, Stage, str]:
    """Return the recordings, their media, and the column of the media that names the recordings."""
    source, media = config.source, config.source.media
    if media is None:
        recordings = builtin_recordings(source)
        return recordings, draw_sounds(recordings), KEPT[0]
    keep = config.media.model_copy(update={"keep": (source.item, *config.media.keep)})
    return read_recordings(source, source=source.located()), read_media(keep, source=media), source.item


def _on_gpu(stage: Stage, refiner: ModelSpec | None) -> Stage:
    """Return a training stage with the GPUs and threads that the refiner asks for."""
    return replace(stage, needs=Needs(gpus=refiner.gpus or 0, threads=refiner.threads or 1)) if refiner else stage


CONLLM = System(
    name="conllm",
    title="ConLLM",
    config=ConllmConfig,
    flow=conllm,
    sections=summary.sections,
    about=About.of("conllm"),
)
