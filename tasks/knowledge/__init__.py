"""Knowledge from the files of its sources: an index, mentions of it in texts, and the facts that these bring."""
