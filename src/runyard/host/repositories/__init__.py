"""Repositories on this host: a bare mirror of each, and the trees that were prepared from it for jobs to lie over."""
