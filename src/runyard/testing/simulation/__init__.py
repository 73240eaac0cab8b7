"""The production dispatcher under seeded histories of faults, on virtual time; `run.simulate` plays one."""
