from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, LlamaFileType
from gguf.quants import dequantize, quantize

from normloom.core.errors import ModelError
from normloom.models.openvino.requantize import Precision, requantized

TOKENS = ["a", "b", "é"]
Q4_1 = GGMLQuantizationType.Q4_1


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NORMLOOM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file with a matrix in Q4_1 and a norm in float32."""
    path = tmp_path / "small.Q4_1.gguf"
    random = np.random.default_rng(0)
    writer = GGUFWriter(path, "llama")
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_1)
    writer.add_context_length(64)
    writer.add_token_list(TOKENS)
    writer.add_tensor("norm.weight", random.standard_normal(48, np.float32))
    blocks = quantize(random.standard_normal((48, 64), np.float32) + 0.5, Q4_1)
    writer.add_tensor("up.weight", blocks, raw_dtype=Q4_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def numbers(path: Path, name: str) -> np.ndarray:
    (tensor,) = (tensor for tensor in GGUFReader(path).tensors if tensor.name == name)
    found: np.ndarray = dequantize(tensor.data, tensor.tensor_type)
    return found.reshape(tensor.shape[::-1])


class TestRequantized:
    @pytest.mark.parametrize("precision", ["f16", "q8_0"])
    def test_weights_are_those_quantised_directly(self, source: Path, precision: Precision) -> None:
        kind = GGMLQuantizationType[precision.upper()]
        exact = numbers(source, "up.weight")
        made = requantized(source, precision)
        np.testing.assert_array_equal(numbers(made, "up.weight"), dequantize(quantize(exact, kind), kind))

    def test_the_error_is_that_of_the_format(self, source: Path) -> None:
        exact = numbers(source, "up.weight")
        largest = np.abs(exact).reshape(-1, 32).max(1, keepdims=True)
        off = {p: np.abs(numbers(requantized(source, p), "up.weight") - exact) for p in ("f16", "q8_0")}
        assert (off["f16"] <= np.abs(exact) * 2.0**-11).all()
        assert (
            off["q8_0"].reshape(-1, 32) <= 1.01 * largest / 254 + largest * 2.0**-11
        ).all()  # half a step, and the scale's rounding
        assert off["q8_0"].max() > off["f16"].max() > 0

    def test_what_is_not_a_matrix_stays(self, source: Path) -> None:
        made = requantized(source, "q8_0")
        np.testing.assert_array_equal(numbers(made, "norm.weight"), numbers(source, "norm.weight"))

    @pytest.mark.parametrize(("precision", "file_type"), [("f16", 1), ("q8_0", 7)])
    def test_the_fields_are_those_of_the_source_but_for_the_file_type(
        self, source: Path, precision: Precision, file_type: int
    ) -> None:
        before, after = GGUFReader(source).fields, GGUFReader(requantized(source, precision)).fields
        assert list(after) == list(before)
        assert after["general.file_type"].contents() == file_type
        assert after["tokenizer.ggml.tokens"].contents() == TOKENS
        for name in ("general.architecture", "llama.context_length"):
            assert after[name].contents() == before[name].contents()

    def test_it_is_made_once_for_a_content(self, source: Path, cache: Path) -> None:
        made = requantized(source, "f16")
        written = made.stat().st_mtime_ns
        assert requantized(source, "f16") == made
        assert made.stat().st_mtime_ns == written
        assert made.is_relative_to(cache)
        copy = source.with_name("other.gguf")
        copy.write_bytes(source.read_bytes().replace("é".encode(), "è".encode()))
        assert requantized(copy, "f16") != made

    def test_a_damaged_file_is_a_model_error_and_leaves_nothing(self, source: Path, cache: Path) -> None:
        source.write_bytes(source.read_bytes()[:-2000])
        with pytest.raises(ModelError, match=r"small\.Q4_1\.gguf: it cannot be rewritten as q8_0"):
            requantized(source, "q8_0")
        assert not [path for path in (cache / "models").iterdir() if not path.name.endswith(".lock")]

    def test_rows_that_hold_no_whole_blocks_are_a_model_error(self, tmp_path: Path) -> None:
        path = tmp_path / "odd.gguf"
        writer = GGUFWriter(path, "llama")
        writer.add_tensor("up.weight", np.ones((4, 33), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(ModelError, match="cannot be rewritten as q8_0"):
            requantized(path, "q8_0")
        assert numbers(requantized(path, "f16"), "up.weight").shape == (4, 33)
