"""Conformance: what a sampler, network, conditioner, ... promises to the rest of zoo, checked by running it.

For authors of plugins, in a test of theirs or as `zoo plugin check PACKAGE`:

    from zoo.conformance import examine

    def test_my_sampler_keeps_what_samplers_promise():
        report = examine("sampler", MySampler)
        assert report.ok, report

zoo's own components pass the same checks (tests/conformance).
"""

from zoo.conformance.report import Check, Fault, NotAsked, Outcome, Report, Subject
from zoo.conformance.suite import CHECKS, examine, examine_component, examine_package

__all__ = [
    "CHECKS",
    "Check",
    "Fault",
    "NotAsked",
    "Outcome",
    "Report",
    "Subject",
    "examine",
    "examine_component",
    "examine_package",
]
