"""Images: reading those that callers give, or refusing them with an error that names the fix; and saving samples.

| module | what it does |
|---|---|
| `decode` | bytes of a file: its format, its size, its checksums; upright, 8 bits a channel |
| `inputs` | what a Python caller or a command line gives: a path, bytes, a file, a PIL image, an array |
| `space` | images as a sample space: pixels in [0, 1], PIL, PNG files with the record inside |
"""
