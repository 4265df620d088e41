"""Hostile files, kills, full disks and damaged bits, at full counts: `python -m benchmarks.reliability`."""
