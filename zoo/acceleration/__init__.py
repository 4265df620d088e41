"""How a denoiser's network is run quicker: wrappers that answer in its place, begun anew for each run.

| file | what it is |
|---|---|
| `fast.py` | which parts of the fast path are on; memory layout and compilation |
| `engine.py`, `graphs.py` | a network laid out, compiled, and recorded as a CUDA graph |
| `step_cache.py` | deep features used again from step to step |
| `accelerated.py` | a run: embeddings and keys worked out ahead, the engine, the step cache; how a denoiser gets them |
"""
