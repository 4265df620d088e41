"""A pipeline and one call of it: stages, request, run, and result."""
