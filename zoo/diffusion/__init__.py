"""Schedules, parameterizations, the denoiser, addressed noise, and the types that pass between the parts."""
