"""diffusers' layout of pipelines: configurations, tensor names, export."""
