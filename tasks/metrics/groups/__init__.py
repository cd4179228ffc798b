"""How ratings differ between groups of raters."""
