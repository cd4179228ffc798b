"""Compile the kernels: `python -m normloom.near_duplicates`. They are kept next to their source until it changes.

That takes a quarter of a minute or more, which each of several processes that need them at once would take.
"""

from __future__ import annotations

from itertools import permutations

from normloom.near_duplicates.features import Features
from normloom.near_duplicates.find import find_clusters, find_duplicates
from normloom.near_duplicates.kernels.ahead import COMPLETE


def main() -> None:
    """Look for near-duplicates in a few made-up texts."""
    words = ("bake", "forest", "tunnel", "why", "quickly", "8", "lemon")
    texts = [" ".join(order) for order in permutations(words)]
    for count in (100, 3000):  # few are looked up one by one, many at once
        find_duplicates(texts[:count], features=Features(), tau=10, jaccard=0.5, alike=0.8)
    find_clusters(texts[:100], features=Features(), tau=10, jaccard=0.5)
    COMPLETE.parent.mkdir(parents=True, exist_ok=True)
    COMPLETE.touch()


if __name__ == "__main__":
    main()
