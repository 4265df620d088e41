"""Images as people and programs hand them over: read right, or refused in a sentence that names them and the fix.

| module | what it reads |
|---|---|
| `decode` | bytes of a file: its format, its size, its checksums; upright, 8 bits a channel |
| `given` | what a Python caller or a command line gives: a path, bytes, a file, a PIL image, an array |
"""
