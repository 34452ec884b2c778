"""Runnable recipes: a plan, its settings, and the search that chose them."""
