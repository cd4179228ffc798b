"""Knowledge that comes with Normloom, so that a build needs none of the large sources.

`symbols.csv` is a table of our own with a source for each row. `lexicon.csv` and `assertions.csv` are of our own
writing, in the layouts of the n-gram lexicon of Davidson et al. 2017 (its weights are ours: nobody has counted them)
and of ConceptNet's dump. `wordnet/` are a few entries of WordNet 3.1, cut to their first two senses, under WordNet's
licence, which stands in each file.
"""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent
SYMBOLS = _FOLDER / "symbols.csv"
LEXICON = _FOLDER / "lexicon.csv"
ASSERTIONS = _FOLDER / "assertions.csv"
WORDNET = _FOLDER / "wordnet"
