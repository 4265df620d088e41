"""The theory: what flows between the parts, noise, schedules, parameterizations, the denoiser."""
