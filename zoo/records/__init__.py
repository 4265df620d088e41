"""The record of how an image came about: data from a stranger until it is checked."""
