"""A table of sounds, each asked about: from the files of a folder to the answers of a model that hears."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from tiny_hearing import SECOND_TOKENS, save_tiny_hearing, tone

from normloom.core.content import MARK, Sound, shown, with_text
from normloom.core.contract import Contract
from normloom.core.errors import ConfigError
from normloom.core.fan_out import each
from normloom.core.models.product_model import ProductFiles
from normloom.core.models.protocol import LanguageModel, ModelSpec, ScoreRequest
from normloom.core.stage import Output, Stage, quarantined_frame, unanswered
from normloom.models.media.senses import require_senses
from normloom.readers.media import MediaFolder, locate_media
from normloom.steps.args import Args
from normloom.steps.graph import stages_of
from normloom.steps.products import files_of
from normloom.steps.step import step
from normloom.store.store import Store
from normloom.tasks.media.read_media import Media, read_media
from normloom.testing import made

HEARD = Contract(columns={"media_id": pl.String(), "p_yes": pl.Float64()})


class Asking(Args):
    """What is asked of each sound."""

    text: str = f"Listen: {MARK}"


@step(makes=HEARD, fan_out=each(), sounds="media")
def heard(rows: pl.DataFrame, args: Asking, model: LanguageModel, *, media: ProductFiles) -> Output:
    """Return how likely the model is to say Yes of each sound."""
    folder = MediaFolder(media.path)
    asked = list(rows.iter_rows(named=True))
    answers = model.score(
        [
            ScoreRequest(
                instruction="You judge sounds.",
                context=with_text(shown(args.text, [Sound(row["media_id"], folder.read(row))]), "Well?"),
                questions=("Is it?",),
                answers=("Yes", "No"),
            )
            for row in asked
        ]
    )
    found = [
        (row["row_id"], row["media_id"], answer.logprobs[0][0])
        for row, answer in zip(asked, answers, strict=True)
        if answer.error is None
    ]
    failed = [unanswered(row, answer) for row, answer in zip(asked, answers, strict=True) if answer.error is not None]
    return Output(
        rows=pl.DataFrame(found, schema={"row_id": pl.String(), **HEARD.columns}, orient="row"),
        quarantined=quarantined_frame(failed),
        tokens_in=sum(answer.tokens_in for answer in answers),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "sounds"
    path.mkdir()
    for name, pitch, seconds, form in (
        ("low.wav", 110.0, 1.0, "WAV"),
        ("high.flac", 1760.0, 1.0, "FLAC"),
        ("long.mp3", 220.0, 30.0, "MP3"),
    ):
        (path / name).write_bytes(tone(pitch, seconds=seconds, form=form))
    return path


def flow(folder: Path, spec: ModelSpec) -> Stage:
    media = read_media(Media(), source=locate_media(folder))
    return heard(media, Asking(), model=spec, media=files_of(media))


def test_each_sound_is_asked_about_and_one_too_long_is_quarantined(folder: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    spec = ModelSpec(model=str(save_tiny_hearing(tmp_path / "model")), dtype="float32", device="cpu")
    manifest = made("hearing", [flow(folder, spec)], store, quarantine_budget=0.5)["heard"]
    rows = store.scan(manifest.ref).collect()
    assert rows["p_yes"].n_unique() == 2
    [reason] = store.scan(manifest.ref, "quarantined").collect()["reason"]
    assert "context and 1 sound with their longest question is" in reason
    assert manifest.tokens_in > 2 * SECOND_TOKENS


def test_a_model_that_cannot_hear_is_found_before_anything_is_made(folder: Path) -> None:
    deaf = ModelSpec(engine="openvino", model="SmolLM2-135M-Instruct")
    with pytest.raises(
        ConfigError, match=r"stage 'heard' asks about sounds, and model .* cannot hear them: .*hands models no sounds"
    ):
        require_senses(stages_of(flow(folder, deaf)))
    require_senses(stages_of(flow(folder, ModelSpec(engine="scripted", model="s", options={"sounds": True}))))
