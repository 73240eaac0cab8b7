"""The words of Runyard as values: frozen, comparable, free of I/O. This room imports nothing of the others."""
