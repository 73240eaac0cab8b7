"""Named caches: folders that a job finds again from an earlier one of its tenant and queue. Standard library only.

`store.py` keeps them, `attempt.py` restores and saves those of one attempt, `eviction.py` decides what goes when it is
too much, `keys.py` fills a file's hash into a key, `packing.py` is what runs in the sandbox.
"""
