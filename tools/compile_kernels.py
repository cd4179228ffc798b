"""Compile the kernels that look for near-duplicates: they are kept next to their source until it changes.

That takes 25 s, which each of several processes that need them at once would take.
"""

from __future__ import annotations

from itertools import permutations

from normloom.near_duplicates.features import Features
from normloom.near_duplicates.find import find_clusters, find_duplicates

texts = [" ".join(words) for words in permutations(("bake", "forest", "tunnel", "why", "quickly", "8", "lemon"))]
for count in (100, 3000):  # few are looked up one by one, many at once
    find_duplicates(texts[:count], features=Features(), tau=10, jaccard=0.5, alike=0.8)
find_clusters(texts[:100], features=Features(), tau=10, jaccard=0.5)
