"""The training loop and what it stands on: the same steps whether a run was interrupted or not."""
