"""Doubles and conformance suites for the tests of whoever builds on the spine."""
