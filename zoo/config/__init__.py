"""What a user writes and what it means, without torch.

| module | what it knows |
|---|---|
| `safe_yaml` | reading YAML and JSON so that a hostile file can do nothing |
| `unknown` | sentences about names that don't exist, with the nearest that does |
| `signature` | what a component takes, read from its source without importing it |
| `values` | whether a value fits an annotation |
| `blocks` | component blocks `{name: ..., **arguments}`, checked recursively |
| `cards` | weight cards |
| `published` | values that cards and presets say were reached, and how |
| `presets` | pipelines: finding, reading, the keys of a pipeline and its stages |
| `overrides` | plain values, merge, dotted overrides, the shortcuts of `build` |
| `parts`, `contract`, `cascade`, `classes` | whether the parts of a pipeline fit each other |
| `check` | `resolve`: all of it, in order |
| `describe` | names and descriptions for people |
"""
