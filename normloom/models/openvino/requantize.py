"""A GGUF file rewritten once with weights in a number format that OpenVINO reads as they are.

OpenVINO's import of 4-bit blocks with a minimum (Q4_1) changes the weights, and some block formats it does not
read at all. Rewritten as F16 or Q8_0 they come through with the rounding error of that format only.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType, QuantError
from gguf.quants import dequantize, quant_shape_to_byte_shape, quantize

from normloom.core.errors import ModelError
from normloom.core.machine.cache import cache_dir
from normloom.core.machine.once import made_once
from normloom.models.files.digests import file_digest

Precision = Literal["f16", "q8_0"]

_RECIPE = 1  # raise it when this module writes another file from the same GGUF; then raise the engine's version too
_FILE_TYPES = {"f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0}


def requantized(gguf: Path, precision: Precision) -> Path:
    """Return a GGUF file with the weights of `gguf` in `precision`, writing it on first use (10 s for a 135M model).

    It lies in the cache directory under a name made of the file's digest, so it is never stale; one process writes
    it while others wait. Raises `ModelError` for a file that cannot be read.
    """
    name = f"{gguf.stem}-{file_digest(gguf)[:16]}-{_RECIPE}.{precision}.gguf"
    return made_once(cache_dir() / "models" / name, lambda draft: _rewrite(gguf, draft, precision))


@dataclass(frozen=True)
class _Weight:
    """A tensor of the file and the format it goes to."""

    name: str
    data: np.ndarray
    shape: tuple[int, ...]  # slowest dimension first, as numpy has it
    source: GGMLQuantizationType
    target: GGMLQuantizationType

    @property
    def stored(self) -> tuple[int, ...]:
        """The shape in bytes."""
        return tuple(quant_shape_to_byte_shape(self.shape, self.target))

    def written(self) -> np.ndarray:
        if self.source == self.target:
            return self.data
        numbers = dequantize(self.data, self.source).reshape(self.shape)
        return np.asarray(quantize(numbers, self.target))


def _rewrite(source: Path, target: Path, precision: Precision) -> None:
    try:
        reader = GGUFReader(source)
        weights = list(_weights(reader, precision))
        writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
        _copy_fields(reader, writer, precision)
        for weight in weights:
            writer.add_tensor_info(
                weight.name, weight.stored, np.dtype(np.uint8), math.prod(weight.stored), raw_dtype=weight.target
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for weight in weights:  # one at a time: the model need not fit into memory twice
            writer.write_tensor_data(weight.written())
        writer.close()
    except (OSError, ValueError, KeyError, IndexError, NotImplementedError, struct.error, QuantError) as error:
        raise ModelError(
            f"model file {source}: it cannot be rewritten as {precision} ({error}); give another GGUF file of the "
            "model, or an OpenVINO export (optimum-cli export openvino)"
        ) from error


def _weights(reader: GGUFReader, precision: Precision) -> Iterator[_Weight]:
    wanted = GGMLQuantizationType[precision.upper()]
    for tensor in reader.tensors:
        shape = tuple(int(length) for length in reversed(tensor.shape))
        target = GGMLQuantizationType.F32 if len(shape) == 1 else wanted  # norms and biases are small and tell much
        yield _Weight(tensor.name, tensor.data, shape, tensor.tensor_type, target)


def _copy_fields(reader: GGUFReader, writer: GGUFWriter, precision: Precision) -> None:
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":  # the writer's own
            continue
        value = _FILE_TYPES[precision].value if key == "general.file_type" else field.contents()
        kind = field.types[0]
        writer.add_key_value(key, value, kind, sub_type=field.types[-1] if kind == GGUFValueType.ARRAY else None)
