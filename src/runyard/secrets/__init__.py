"""Named secrets: sealed in the ledger, handed to the attempts that may have them, told to nobody else."""
