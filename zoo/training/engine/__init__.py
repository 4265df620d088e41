"""The training loop and its parts: the same steps whether a run was interrupted or not."""
