"""LoRA files of every spelling: whose modules they adapt, and what they add to the weights (Hu et al. 2021)."""
