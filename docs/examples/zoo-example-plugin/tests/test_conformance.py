"""zoo's conformance suite as this package's own test."""

from zoo_example_plugin.mixer import MLPMixer
from zoo_example_plugin.ralston import Ralston

from zoo.conformance import examine


def test_the_sampler_keeps_what_samplers_promise():
    report = examine("sampler", Ralston)
    assert report.ok, report


def test_the_network_keeps_what_networks_promise():
    report = examine("network", MLPMixer)
    assert report.ok, report
