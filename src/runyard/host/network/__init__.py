"""The network namespace of an attempt that lists where it may go, or that has services: what is open, and the resolver
that opens it. The shim imports this: standard library only."""
