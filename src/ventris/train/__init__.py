"""Training of drafters: the target's texts and hidden states cached once, one trainer for all methods."""
