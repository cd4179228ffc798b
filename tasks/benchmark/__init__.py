"""The benchmark: models under test, detectors and responders."""
