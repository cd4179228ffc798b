"""Equal error rate of scores that tell real from fake, as countermeasures against spoofed speech are judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True)
class EqualError:
    """The equal error rate, the cut at which it was found, and the area under the ROC curve, both 0 to 1."""

    rate: float
    cut: float
    auc: float

    @property
    def is_flipped(self) -> bool:
        """Whether the scores rank fakes above real items, as they do if the orientation is the other way round."""
        return self.auc < 0.5  # noqa: PLR2004  # chance


def equal_error_rate(scores: npt.ArrayLike, real: npt.ArrayLike) -> EqualError:
    """Return the equal error rate of scores, higher for real items; `real` says which are, (items,) bool.

    At a cut, real items at or below it are falsely refused and fakes above it falsely accepted. Of the distinct scores
    the one with the least difference of both rates is the cut, the lowest of equal ones; the rate is their mean there.
    A flipped sign gives 1 minus the rate and looks like a bad model: see `is_flipped`.

    Raises ValueError for scores that are not finite, and without real items or fakes.
    """
    import numpy as np

    given, true = np.asarray(scores, dtype=np.float64), np.asarray(real, dtype=bool)
    if not np.isfinite(given).all():
        raise ValueError(f"{int((~np.isfinite(given)).sum())} of {given.size} scores are not finite")
    reals, fakes = np.sort(given[true]), np.sort(given[~true])
    if not (len(reals) and len(fakes)):
        raise ValueError(f"{len(reals)} real items and {len(fakes)} fakes: expected some of both")
    cuts = np.unique(given)
    refused = np.searchsorted(reals, cuts, side="right")
    accepted = len(fakes) - np.searchsorted(fakes, cuts, side="right")
    best = int(np.abs(accepted * len(reals) - refused * len(fakes)).argmin())  # whole numbers: no tie by rounding
    rate = (refused[best] / len(reals) + accepted[best] / len(fakes)) / 2
    below = (np.searchsorted(fakes, reals, side="left") + np.searchsorted(fakes, reals, side="right")) / 2
    auc = float(below.mean() / len(fakes))
    return EqualError(rate=float(rate), cut=float(cuts[best]), auc=auc)
