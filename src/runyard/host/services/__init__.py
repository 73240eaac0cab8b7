"""The services of an attempt: programs beside its steps, each in its own image. Standard library only: the shim imports
this."""
