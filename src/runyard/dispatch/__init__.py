"""The loop that gives waiting jobs to pools and sees each attempt to its one accepted end."""
