"""Compile the kernels that look for near-duplicates: they are kept next to their source until it changes.

That takes 20 s, which each of several processes that need them at once would take.
"""

from __future__ import annotations

from normloom.near_duplicates.features import Features
from normloom.near_duplicates.find import find_clusters, find_duplicates

texts = [
    f"How do I {verb} {noun} for {number} guests?"
    for verb in ("bake", "fry")
    for noun in ("a cake", "fish")
    for number in range(40)
]
find_duplicates(texts, features=Features(), tau=10, jaccard=0.5, alike=0.8)
find_clusters(texts, features=Features(), tau=10, jaccard=0.5)
