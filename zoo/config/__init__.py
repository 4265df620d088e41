"""Configs as users write them, and what they mean, without torch.

| module | what it knows |
|---|---|
| `blocks` | component blocks `{name: ..., **arguments}`, checked recursively |
| `cards` | weight cards |
| `published` | published values of cards and presets, and how they were measured |
| `presets` | pipelines: finding, reading, the keys of a pipeline and its stages |
| `overrides` | merge, dotted overrides, the shortcuts of `build` |
| `parts`, `contract` | whether the parts of a pipeline fit each other |
| `arrays`, `cascade`, `classes`, `conditions`, `guidance`, `sampling` | the contract's parts: one topic each |
| `check` | `resolve`: all of it, in order |
| `describe` | names and descriptions for people |
"""
