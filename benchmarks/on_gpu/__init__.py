"""All that needs a GPU, in one command: `python -m benchmarks.on_gpu --minutes 8 --out DIR`.

| module | what it is |
|---|---|
| `__main__` | the command line |
| `conductor` | phases share the time; each runs in a process of its own, which is watched and ended where it hangs |
| `phase` | that process, for the phases that are suites of `zoo bench` |
| `correct`, `quality`, `speed` | those suites, for a device, and tiny for two CPU cores |
| `train` | the phase that trains what ships for as long as there is time |
| `ahead` | compiles while nothing is timed what the speed phase will use compiled |
| `joined` | the phases' records as one, and the folder as few files |
| `calls` | several calls' records as one, to be kept |
| `table` | what came out, for people |
| `pack` | what must travel to a machine that has nothing but torch |

docs/gpu.md says how to run it and what it found.
"""
