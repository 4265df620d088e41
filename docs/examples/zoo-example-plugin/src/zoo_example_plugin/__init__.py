"""A sampler and a network for zoo; importing this does nothing, zoo imports the modules when they are used."""
