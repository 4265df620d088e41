"""Stable Diffusion 1, 2 and XL: the files people have, in CompVis' and Stability's own layout or a diffusers folder."""
