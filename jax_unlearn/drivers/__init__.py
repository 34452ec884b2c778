"""Drivers: what runs an unlearner over batches, keeps it, guards it, spreads it out.

Where no source is named, the choice is ours.
"""
