"""Score SDE (Song et al. 2021b)."""
