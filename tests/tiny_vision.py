"""A vision-language model of a few thousand random weights in the layout of Idefics3 and SmolVLM, and images for it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny_models import ENDS, text_settings, tokenizer
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
)

TILE, PATCH, SCALE = 32, 8, 2
TILE_TOKENS = (TILE // PATCH) ** 2 // SCALE**2
# As SmolVLM's: messages are lists of parts, and a colon has no blank before an image.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}<image>{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
_TOKENS = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]


def save_tiny_vision(directory: Path, *, heads: int = 4) -> Path:
    """Write the model, its processor and its tokenizer to `directory`; an image of 64 pixels is five tiles.

    On some processors vLLM has no heads of less than 32.
    """
    words = tokenizer(TEMPLATE)
    tiles = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    words.add_special_tokens({"additional_special_tokens": [*_TOKENS, *tiles]})
    image_token = words.convert_tokens_to_ids("<image>")
    torch.manual_seed(0)
    config = Idefics3Config(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": TILE,
            "patch_size": PATCH,
            "initializer_range": 0.3,
        },
        text_config={"model_type": "llama", **text_settings(len(words), heads=heads)},
        scale_factor=SCALE,
        image_token_id=image_token,
        initializer_range=0.3,
        **ENDS,
    )
    Idefics3ForConditionalGeneration(config).save_pretrained(directory)
    pixels = Idefics3ImageProcessorPil(
        size={"longest_edge": 2 * TILE}, max_image_size={"longest_edge": TILE}, return_row_col_info=True
    )
    Idefics3Processor(pixels, words, image_seq_len=TILE_TOKENS, chat_template=TEMPLATE).save_pretrained(directory)
    return directory


def picture(seed: int, *, width: int = 64, height: int = 64, form: str = "PNG") -> bytes:
    """Return an image of random blocks of colour, encoded."""
    blocks = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST).save(stream, form)
    return stream.getvalue()
