"""The promises of the provider port, one test each, by subject. `runyard.testing.conformance` puts them together."""
