"""Published lines of models, a folder each: how their files name what zoo names otherwise."""
