"""Audio-language models of a few thousand random weights in the layouts of Audio Flamingo 3 and Qwen2-Audio; sounds."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
import torch
from safetensors.torch import load_file, save_file
from tiny_models import ENDS, text_settings, tokenizer
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    AudioFlamingo3Processor,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

RATE, SECONDS = 16_000, 30  # of the pieces that a sound is read in, which vLLM wants so
FRAMES = 100  # of a second
SECOND_TOKENS = FRAMES // 4
MELS = 16
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for line in message['content'] %}{% if line['type'] == 'text' %}"
    "{{ line['text'] }}{% elif line['type'] == 'audio' %}<sound>{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = TEMPLATE.replace(
    "{% for message in messages %}",
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}",
    1,
)


def save_tiny_hearing(directory: Path, *, heads: int = 4, template: str = TEMPLATE) -> Path:
    """Write the model, its processor and its tokenizer to `directory`; a second of sound is SECOND_TOKENS tokens.

    On some processors vLLM has no heads of less than 32.
    """
    words = tokenizer(template)
    words.add_special_tokens({"additional_special_tokens": ["<sound>"]})
    torch.manual_seed(0)
    config = AudioFlamingo3Config(
        audio_config={
            "model_type": "audioflamingo3_encoder",
            "num_mel_bins": MELS,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_source_positions": FRAMES * SECONDS // 2,
            "initializer_range": 0.3,
        },
        text_config={"model_type": "qwen2", **text_settings(len(words), heads=heads)},
        audio_token_id=words.convert_tokens_to_ids("<sound>"),
        **ENDS,
    )
    AudioFlamingo3ForConditionalGeneration(config).save_pretrained(directory)
    _named_as_published(directory / "model.safetensors")
    features = WhisperFeatureExtractor(feature_size=MELS, sampling_rate=RATE, chunk_length=SECONDS)
    AudioFlamingo3Processor(features, words, chat_template=template).save_pretrained(directory)
    return directory


def save_tiny_listener(directory: Path) -> Path:
    """Write a model in the layout of Qwen2-Audio, which hears SECONDS at most, with its processor and tokenizer."""
    words = tokenizer()
    words.add_special_tokens({"additional_special_tokens": ["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]})
    torch.manual_seed(0)
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": MELS,
            "d_model": 16,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "max_source_positions": FRAMES * SECONDS // 2,
            "initializer_range": 0.3,
        },
        text_config={"model_type": "qwen2", **text_settings(len(words))},
        audio_token_index=words.convert_tokens_to_ids("<|AUDIO|>"),
        **ENDS,
    )
    Qwen2AudioForConditionalGeneration(config).save_pretrained(directory)
    features = WhisperFeatureExtractor(feature_size=MELS, sampling_rate=RATE, chunk_length=SECONDS)
    words.chat_template = None
    Qwen2AudioProcessor(features, words).save_pretrained(directory)  # with its own chat template
    return directory


def _named_as_published(path: Path) -> None:
    """Name weights as in nvidia/audio-flamingo-3-hf, which vLLM reads; transformers reads these and writes others."""
    weights = load_file(path)
    save_file({name.replace(".model.model.", ".model."): one for name, one in weights.items()}, path, {"format": "pt"})


def tone(pitch: float, *, seconds: float = 1.0, rate: int = RATE, loud: float = 0.5, form: str = "WAV") -> bytes:
    """Return a tone of `pitch` hertz, encoded; `loud` is its largest sample."""
    time = np.arange(round(seconds * rate)) / rate
    stream = io.BytesIO()
    soundfile.write(stream, (loud * np.sin(2 * np.pi * pitch * time)).astype(np.float32), rate, format=form)
    return stream.getvalue()
