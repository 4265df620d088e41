"""What every package of zoo builds on: the registry, safe readers, errors, atomic files. No torch."""
