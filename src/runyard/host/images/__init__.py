"""OCI images on this host without a daemon: unpacked once, stacked read-only, run on an overlay.

What the shim imports (`roots`, `ids`) is standard library only and imports nothing else from here.
"""
