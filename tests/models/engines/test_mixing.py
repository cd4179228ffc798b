"""Adapters mixed by request on engine transformers, against what PEFT makes of the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from adapters import save_adapter
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_models import loaded, save_tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer

from normloom.core.errors import ModelError
from normloom.core.models.protocol import Adaptable, Embedder, Mixable, ReplyRequest
from normloom.models import GenerateRequest, LanguageModel, Sampling, ScoreRequest
from normloom.models.transformers.engine import TransformersModel
from normloom.models.transformers.mixing import Adapters

PROMPTS = ("Is it about cats?", "Is the answer about the weather?", "Yes or no?", "Dogs, health, weather.")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def folders(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return three adapters that differ in ranks, layers and scale."""
    made = [tmp_path_factory.mktemp(f"adapter{number}") for number in range(3)]
    save_adapter(str(tiny), made[0], seed=0)
    save_adapter(str(tiny), made[1], seed=1, rank=2, target_modules=["q_proj", "down_proj"], lora_alpha=5)
    save_adapter(str(tiny), made[2], seed=2, use_rslora=True)
    return made


@pytest.fixture(scope="module")
def base(tiny: Path) -> TransformersModel:
    return loaded(tiny)


def written(model: LanguageModel, prompts: tuple[str, ...] = PROMPTS) -> list[str]:
    asked = Sampling(temperature=0, max_tokens=12)
    requests = [
        GenerateRequest(instruction="You judge texts.", prompt=one, seeds=(1, 2), sampling=asked) for one in prompts
    ]
    return [answer.candidates[0].text for answer in model.generate(requests)]


def scored(model: LanguageModel, prompts: tuple[str, ...] = PROMPTS) -> list[float]:
    requests = [
        ScoreRequest(instruction="You judge texts.", context=one, questions=("?", "Is it?"), answers=("Yes", "No"))
        for one in prompts
    ]
    return [value for answer in model.score(requests) for pair in answer.logprobs for value in pair]


def by_peft(tiny: Path, folders: list[Path], weights: list[float], place: Path) -> TransformersModel:
    """Return the model with adapters merged into it by PEFT: `add_weighted_adapter`, which concatenates ranks."""
    names = [f"a{number}" for number in range(len(folders))]
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), folders[0], adapter_name=names[0])
    for name, folder in zip(names[1:], folders[1:], strict=True):
        model.load_adapter(folder, name)
    for module in model.modules():  # what PEFT merges one after the other is the sum that it cannot do at once
        if hasattr(module, "scaling") and hasattr(module, "merge"):
            for name, weight in zip(names, weights, strict=True):
                if name in module.scaling:
                    module.scaling[name] *= weight
    model.base_model.merge_adapter(names)
    model.base_model.unload().save_pretrained(place)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(place)
    return loaded(place)


def test_an_adapter_of_a_shared_base_is_that_of_peft(
    tiny: Path, folders: list[Path], base: TransformersModel, tmp_path: Path
) -> None:
    before = written(base)
    for number, folder in enumerate(folders):
        reference = by_peft(tiny, [folder], [1.0], tmp_path / str(number))
        tuned = base.adapted(folder)
        assert written(tuned) == written(reference) != before
        assert scored(tuned) == pytest.approx(scored(reference), abs=1e-4)
        asked = [ReplyRequest(instruction="x", prompt="Cats?", reply=reply) for reply in ("Yes", "No and no")]
        one, other = ([score.logprob for score in model.score_replies(asked)] for model in (tuned, reference))
        assert one == pytest.approx(other, abs=1e-4)
    assert written(base) == before  # nothing stays behind


def test_each_request_has_weights_of_its_own_in_one_batch(
    tiny: Path, folders: list[Path], base: TransformersModel, tmp_path: Path
) -> None:
    weights = [[1.0, 0.0, 0.0], [0.2, 0.5, 0.3], [0.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]]
    mixed = base.mixed(folders, np.array(weights))
    texts, numbers = written(mixed), np.array(scored(mixed)).reshape(len(PROMPTS), -1)
    for place, (prompt, own) in enumerate(zip(PROMPTS, weights, strict=True)):
        reference = by_peft(tiny, folders, own, tmp_path / str(place))
        assert written(reference, (prompt,)) == [texts[place]]
        assert scored(reference, (prompt,)) == pytest.approx(numbers[place].tolist(), abs=1e-4)
    assert len({texts[0], written(base)[0], written(base.mixed(folders, np.full((4, 3), 1 / 3)))[0]}) == 3


def test_what_is_read_counts_once_for_all_that_share_a_base(folders: list[Path], base: TransformersModel) -> None:
    base.take_usage()
    written(base.adapted(folders[0]))
    written(base.mixed(folders, np.full((4, 3), 0.5)))
    usage = base.take_usage()
    assert usage["prompt_tokens"] > usage["cached_tokens"] > 0
    assert not any(base.adapted(folders[0]).take_usage().values())


def test_states_are_the_mean_of_the_last_layer(tiny: Path, folders: list[Path], base: TransformersModel) -> None:
    states = base.embed([*PROMPTS, ""])
    model = AutoModelForCausalLM.from_pretrained(tiny)
    for text, state in zip(PROMPTS, states, strict=False):
        ids = torch.tensor([AutoTokenizer.from_pretrained(tiny)(text)["input_ids"]])
        with torch.inference_mode():
            mean = model(ids, output_hidden_states=True).hidden_states[-1][0].mean(0)
        assert state == pytest.approx((mean / mean.norm()).numpy(), abs=1e-5)
    assert not states[-1].any()
    assert np.array_equal(base.adapted(folders[0]).embed(list(PROMPTS)), states[:-1])  # a router reads the base's
    assert isinstance(base, Adaptable)
    assert isinstance(base, Mixable)
    assert isinstance(base, Embedder)


def test_what_is_no_plain_lora_is_refused(tiny: Path, base: TransformersModel, tmp_path: Path) -> None:
    save_adapter(str(tiny), tmp_path / "dora", use_dora=True)
    with pytest.raises(ModelError, match="not plain LoRA: use_dora is set"):
        base.adapted(tmp_path / "dora")
    save_adapter(str(tiny), tmp_path / "head", modules_to_save=["lm_head"])
    with pytest.raises(ModelError, match=r"not plain LoRA: it holds .*lm_head"):
        base.adapted(tmp_path / "head")
    (tmp_path / "head" / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"adapter_config.json does not describe a LoRA adapter"):
        base.adapted(tmp_path / "head")
    with pytest.raises(ModelError, match="mixed by request, and this is asked of all requests at once"):
        _mixed_replies(base, tiny, tmp_path)


def test_adapters_of_other_layers_and_files_that_are_torn_are_refused(
    tiny: Path, base: TransformersModel, tmp_path: Path
) -> None:
    save_adapter(str(tiny), tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    save_file({name.replace("q_proj", "x_proj"): value for name, value in load_file(path).items()}, path)
    with pytest.raises(ModelError, match=r"changes the layer .*x_proj, which the model lacks"):
        base.adapted(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"adapter_model.safetensors cannot be read: "):
        base.adapted(tmp_path)


class Flat(torch.nn.Module):
    """A layer that reads all rows as one, as experts of a mixture do."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.layer(states.flatten(0, 1))
        return made


def test_a_layer_that_reads_all_rows_as_one_is_not_mixed_by_request(tmp_path: Path) -> None:
    weights = {f"base_model.model.layer.lora_{side}.weight": torch.ones(4, 4) for side in "AB"}
    save_file(weights, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 4}')
    model = Flat()
    adapters = Adapters(model, [tmp_path])
    with (
        adapters.added(torch.ones(2, 1)),
        pytest.raises(
            ModelError, match=r"its layer Linear an input of shape \(6, 4\), not one line for each of 2 rows"
        ),
    ):
        model(torch.zeros(2, 3, 4))


def _mixed_replies(base: TransformersModel, tiny: Path, place: Path) -> None:
    save_adapter(str(tiny), place / "plain")
    model = base.mixed([place / "plain"], np.ones((1, 1)))
    model.score_replies([ReplyRequest(instruction="x", prompt="Cats?", reply="Yes")])
