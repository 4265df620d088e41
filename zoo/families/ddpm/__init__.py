"""Ho et al.'s DDPM (2020)."""
