"""Where attempts run: the port, and one folder for each kind of place."""
