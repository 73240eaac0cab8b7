"""OCI registries: what an image's name means, with which credentials it is asked for, and a client that believes
nothing it did not verify. `cache/` is the pull-through cache that the service offers."""
