"""A Llama of a few thousand random weights, with a tokenizer trained on the spot, for tests of the engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from normloom.models import ModelSpec, load_model
from normloom.models.transformers.engine import TransformersModel

CONTEXT = 512
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}<|im_start|>model\n"
)
SILENT_SYSTEM = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "<|im_start|>user\n{{ message['content'] }}<|im_end|>\n{% endif %}{% endfor %}<|im_start|>assistant\n"
)
_CORPUS = [
    "Yes No Yes No Yes No",
    "Is the answer about the weather, about health, or about cats and dogs? Yes. No.",
    "You judge texts. Answer each question with Yes or No. system user assistant",
] * 20


def tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of 384 tokens; `<think>` is an added token that is not declared special."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_CORPUS, trainer)
    backend.add_tokens(["<think>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|im_end|>", chat_template=template
    )


ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


def text_settings(words: int, *, heads: int = 4) -> dict[str, Any]:
    """Return the settings of a language model of two layers; on some processors vLLM has no heads of less than 32."""
    return {
        "vocab_size": words,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": min(heads, 2),
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.3,  # wide, so that the next tokens differ in likelihood
        **ENDS,
    }


def save_tiny_llama(directory: Path, *, template: str = CHATML, heads: int = 4) -> Path:
    """Write the model and its tokenizer to `directory`; on some processors vLLM has no heads of less than 32."""
    words = tokenizer(template)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**text_settings(len(words), heads=heads))).save_pretrained(directory)
    words.save_pretrained(directory)
    return directory


def loaded(directory: Path, **options: Any) -> TransformersModel:
    """Return the model in a folder, in float32 on one thread."""
    model = load_model(ModelSpec(model=str(directory), dtype="float32", device="cpu", options=options), threads=1)
    assert isinstance(model, TransformersModel)
    return model
