"""Decisions as functions of values and `now`. No clock, no I/O, no randomness: the service, the simulator and the
explanations that users read all call these."""
