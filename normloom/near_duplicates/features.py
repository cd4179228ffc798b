"""What a text is compared by. Apart from the code that compares, which is compiled and slow to import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Features(BaseModel):
    """What a text is made of: sizes of its word and character n-grams, counted (`tf`) or not (`binary`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    word_ngrams: tuple[PositiveInt, ...] = Field((), description="lengths of word shingles")
    char_ngrams: tuple[PositiveInt, ...] = Field((4,), description="lengths of character shingles")
    weighting: Literal["tf", "binary"] = Field(
        "tf", description="whether a shingle counts as often as it occurs, or once"
    )

    @model_validator(mode="after")
    def _has_sizes(self) -> Self:
        for sizes in (self.word_ngrams, self.char_ngrams):
            if len(set(sizes)) != len(sizes):
                raise ValueError(f"n-gram sizes {sizes} repeat a size")
        if not (self.word_ngrams or self.char_ngrams):
            raise ValueError("name at least one size in word_ngrams or char_ngrams")
        return self

    def grams(self) -> npt.NDArray[np.int64]:
        """Return the n-grams as (m, 2) int64: gap between units (0 characters, 1 words), size."""
        import numpy as np

        return np.array([(0, n) for n in self.char_ngrams] + [(1, n) for n in self.word_ngrams], dtype=np.int64)
