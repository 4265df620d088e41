"""Both sides of an evaluation: where images come from."""
