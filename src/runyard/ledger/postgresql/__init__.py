"""The ledger on PostgreSQL, for any number of services: each write one call of a stored function."""
