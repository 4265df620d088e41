"""Hostile files, kills, full disks and spoiled bits, at full counts: `python -m benchmarks.reliability`."""
