"""Measurements on this machine, each against a reference taken in the same run: `runyard bench`."""
