"""The HTTP API: validates, authorises, reads and writes the ledger. Never imports dispatch, providers or host."""
