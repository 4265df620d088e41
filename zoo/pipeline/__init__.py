"""A pipeline and one call of it: stages, request, the run, what it returns."""
