"""The loom: store, stage runner, actors, models, quality, lineage. Knows no system, no taxonomy, no prompt."""
