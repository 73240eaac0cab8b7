"""The caches of one attempt: restored before its first step, saved after its success.

A cache never fails a job: whatever goes wrong is said in the log, and the job goes on without it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

from runyard.host.attempt_directory import WORKSPACE
from runyard.host.caches.entry import Scope
from runyard.host.caches.keys import KeyTemplates
from runyard.host.caches.packing import EMPTY, NOT_A_FOLDER, pack_command, unpack_command
from runyard.host.caches.store import CacheFailed, CacheStore, Hit, MustEnd
from runyard.host.linux import boottime
from runyard.host.plan import PlanCache, PlanCaches
from runyard.host.sandbox_command import Place
from runyard.host.step import Command, ProgramEnd
from runyard.host.verdict import NOT_FOUND

Say = Callable[[str], None]
NoteUse = Callable[[str], None]
"""Counts one cache: `restored` or `missed`, later `saved`; `failed` where either could not be done."""

RunPacker = Callable[[Command], tuple[ProgramEnd, str]]
"""Runs a command with its words in the setup log; returns its end and the last it said."""


class AttemptCaches:
    """`restore` once before the steps, `save` once after them."""

    def __init__(self, place: Place, caches: PlanCaches, say: Say, note_use: NoteUse) -> None:
        self._place = place
        self._caches = caches
        self._scope = Scope(tenant=caches.tenant, queue=caches.queue)
        self._say = say
        self._note_use = note_use
        self._to_save: list[tuple[PlanCache, str]] = []

    @property
    def has_to_save(self) -> bool:
        return bool(self._to_save)

    def restore(self, run: RunPacker, must_end: MustEnd) -> ProgramEnd | None:
        """Returns an end only if a request to stop or a time-out ended it."""
        if not self._caches.bytes_max:
            self._say("cache: this pool keeps none (its `cache_disk_max` is 0)")
            return None
        templates = KeyTemplates(self._place.directory.file(WORKSPACE), must_end)
        for cache in self._caches.entries:
            with self._forgiving(cache):
                end = self._restore(cache, self._store(must_end), templates, run)
                if end is not None:
                    return end
        return None

    def save(self, run: RunPacker, must_end: MustEnd) -> None:
        for cache, key in self._to_save:
            with self._forgiving(cache):
                self._save(cache, key, self._store(must_end), run)

    def _restore(
        self, cache: PlanCache, store: CacheStore, templates: KeyTemplates, run: RunPacker
    ) -> ProgramEnd | None:
        began = boottime()
        key = templates.fill(cache.key)
        prefixes = tuple(templates.fill(prefix) for prefix in cache.restore)
        for pattern in sorted(templates.unmatched):
            self._say(f"cache: no file matches {{sha256:{pattern}}}")
        templates.unmatched.clear()
        hit = store.find(self._scope, key, prefixes)
        if hit is None or hit.entry.key != key:
            self._to_save.append((cache, key))
        if hit is None:
            self._note_use("missed")
            self._say(f"cache: {cache.shown}: nothing is saved under {key!r}")
            return None
        try:
            self._check_fits(hit)
            end, words = run(unpack_command(self._place, cache, hit.fd))
        finally:
            hit.close()
        if end.why is not None:
            return end
        if end.exit_code != 0:
            raise CacheFailed(f"{hit.entry.key!r} could not be unpacked: {_reason(end, words)}")
        self._note_use("restored")
        took = f"{_size(hit.entry.size_bytes)} in {boottime() - began:.2f} s"
        found = "" if hit.entry.key == key else f"; nothing is saved under {key!r}"
        self._say(f"cache: {cache.shown}: restored {hit.entry.key!r}, {took}{found}")
        return None

    def _check_fits(self, hit: Hit) -> None:
        """It must not use up what the job itself may write."""
        bytes_max = self._place.plan.disk.bytes_max
        room = os.statvfs(self._place.directory.path)
        free_bytes = room.f_bavail * room.f_frsize - self._place.plan.disk.reserve_bytes
        size = hit.entry.size_bytes
        if bytes_max is not None and size > bytes_max:
            raise CacheFailed(f"{hit.entry.key!r} has {_size(size)}, the job may write {_size(bytes_max)}")
        if size > free_bytes:
            raise CacheFailed(f"{hit.entry.key!r} has {_size(size)}, and the disk has no more room for it")

    def _save(self, cache: PlanCache, key: str, store: CacheStore, run: RunPacker) -> None:
        began = boottime()
        if store.has(self._scope, key):
            self._say(f"cache: {cache.shown}: {key!r} was saved by another job meanwhile")
            return
        archive = store.new_archive()
        try:
            entry_max = min(self._caches.entry_bytes_max, self._caches.bytes_max)
            end, words = run(pack_command(self._place, cache, archive.fd, bytes_max=entry_max))
            if end.exit_code != 0 or end.why is not None:
                raise CacheFailed(f"nothing is saved: {_not_packed(end, words, entry_max)}")
            entry = store.keep(self._scope, key, archive)
        finally:
            archive.close()
        if entry is None:
            self._say(f"cache: {cache.shown}: {key!r} was saved by another job meanwhile")
            return
        self._note_use("saved")
        took = f"{_size(entry.size_bytes)} in {boottime() - began:.2f} s"
        self._say(f"cache: {cache.shown}: saved as {key!r}, {took}")

    def _store(self, must_end: MustEnd) -> CacheStore:
        return CacheStore(self._caches.directory, bytes_max=self._caches.bytes_max, must_end=must_end)

    @contextlib.contextmanager
    def _forgiving(self, cache: PlanCache) -> Iterator[None]:
        try:
            yield
        except CacheFailed as error:
            self._note_use("failed")
            self._say(f"cache: {cache.shown}: {error}")
        except OSError as error:
            self._note_use("failed")
            self._say(f"cache: {cache.shown}: the pool's store of caches: {error.strerror}")


def _not_packed(end: ProgramEnd, words: str, bytes_max: int) -> str:
    if end.why is not None:
        return end.words or {"canceled": "a request to stop came"}.get(end.why, "it took too long")
    if end.exit_code == NOT_A_FOLDER:
        return "it is no folder"
    if end.exit_code == EMPTY:
        return "it is empty"
    if signal.SIGXFSZ in (end.signal, (end.exit_code or 0) - 128):
        return f"it is larger than {_size(bytes_max)} (the pool's `cache_entry_max`)"
    return _reason(end, words)


def _reason(end: ProgramEnd, words: str) -> str:
    if end.exit_code == NOT_FOUND:
        return "tar is not installed on this host"
    lines = words.strip().splitlines()
    return end.setup_error or (lines[-1] if lines else f"tar ended with {end.exit_code}")


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
