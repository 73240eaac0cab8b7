"""The ledger on SQLite: one writer thread with group commit, readers on snapshots, hand-written SQL by subject."""
