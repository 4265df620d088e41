"""Published model families, a folder each: their files' layouts in zoo's names, and back."""
