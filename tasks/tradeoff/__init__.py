"""Several aims at once: rows by axis, judges, and what each axis won and paid."""
