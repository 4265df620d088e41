"""Faster evaluation of a denoiser's network: wrappers that replace it, started again for each run.

| file | what it is |
|---|---|
| `fast.py` | which parts of the fast path are on; memory layout and compilation |
| `engine.py`, `graphs.py` | a network laid out, compiled, and recorded as a CUDA graph |
| `step_cache.py` | deep features reused between steps |
| `accelerated.py` | a run: embeddings and keys computed ahead, the engine, the step cache; how a denoiser gets them |
"""
