"""Inspecting pipelines: what differs between two, what one will cost, replaying records, and plots.

    from zoo.inspection import compare

    print(compare("latent-text2img", "mine.yaml"))
    print(compare("apple.png", "latent-text2img", steps=20))

| module | what it knows |
|---|---|
| `sides` | what is compared: a pipeline's name, a config file, a record in a PNG or in JSON |
| `facts` | blocks with their defaults written out, networks by their cards, schedules and evaluations as numbers |
| `stages` | what differs between two stages |
| `compare` | all of it, and the sentences |
| `cost` | what a pipeline will cost: evaluations, parameters, bytes |
| `replay` | drawing an image again from its record |
| `installation` | versions, devices, caches, plugins, and what is broken |
| `plots` | schedules, noising, trajectories and grids as figures |
"""

from zoo.inspection.compare import Comparison, Difference, compare

__all__ = ["Comparison", "Difference", "compare"]
