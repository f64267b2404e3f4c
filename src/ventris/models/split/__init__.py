"""A decoder whose layers are in two processes."""
