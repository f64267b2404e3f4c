"""Training of drafters and judges: the target's texts and hidden states are computed once and cached."""
