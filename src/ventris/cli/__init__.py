"""The command line: one file a command, and what they share. Nothing here imports torch at start-up."""
