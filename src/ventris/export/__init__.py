"""Checkpoints of drafters in the forms that other engines load."""
