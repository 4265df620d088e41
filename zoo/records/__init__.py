"""The record of how an image was made: untrusted data until it is checked."""
