"""Drivers: what runs an unlearner over batches, keeps it, guards it, spreads it out."""
