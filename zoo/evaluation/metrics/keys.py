"""The key of a number: everything that must be equal before two of them may be compared.

`fid-tf1@50000`, `kid[inception-2015@6726825d,100x1000]@50000`, `fd[emoji-evaluator@2125d3dc]@500`: the metric, the
extractor with the first eight digits of its weights' SHA-256, the metric's settings, and N, the number of generated
samples. Only the distances under the 2015 Inception have names of their own, since their extractor is in the name.
"""

from __future__ import annotations


def metric_key(metric: str, extractor: str, sha256: str, count: int, *settings: str) -> str:
    """METRIC[EXTRACTOR@HASH,SETTINGS]@N."""
    inside = ",".join([f"{extractor}@{sha256[:8]}", *settings])
    return f"{metric}[{inside}]@{count}"


def distance_key(extractor: str, sha256: str, count: int) -> str:
    """The name that a Fréchet distance goes by."""
    return metric_key("fd", extractor, sha256, count)
