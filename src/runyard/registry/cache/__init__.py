"""The pull-through cache: every blob fetched from its registry once, verified, and served from disk from then on.

`settings` is what an operator says; `store` the verified bytes on disk; `downloads` the single flight; `repositories`
which names and manifests were allowed; `rights` what somebody's own login may read; `cache` decides; `application` is
the HTTP side and `serving` runs it.
"""
