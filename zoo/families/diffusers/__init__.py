"""The layout in which diffusers keeps pipelines."""
