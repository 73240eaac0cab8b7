"""Who wants to know which topics, inside this process. Fired after a commit, from whatever thread committed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable


class Hub:
    """The subscriptions of one ledger, by topic."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_topic: dict[str, set[TopicSubscription]] = {}

    def subscribe(self, *topics: str) -> TopicSubscription:
        subscription = TopicSubscription(self, frozenset(topics))
        with self._lock:
            for topic in topics:
                self._by_topic.setdefault(topic, set()).add(subscription)
        return subscription

    def fire(self, topics: Iterable[str]) -> None:
        with self._lock:
            for topic in topics:
                for subscription in self._by_topic.get(topic, ()):
                    subscription.note(topic)

    def fire_all(self) -> None:
        """What changed is not known, so everybody looks."""
        with self._lock:
            topics = list(self._by_topic)
        self.fire(topics)

    def remove(self, subscription: TopicSubscription) -> None:
        with self._lock:
            for topic in subscription.topics:
                subscribed = self._by_topic.get(topic, set())
                subscribed.discard(subscription)
                if not subscribed:
                    self._by_topic.pop(topic, None)
            subscription.is_closed = True
            subscription.wake()

    def take(self, subscription: TopicSubscription) -> frozenset[str]:
        """What fired since the last take."""
        with self._lock:
            fired = frozenset(subscription.fired)
            subscription.fired.clear()
            return fired

    def take_or_park(
        self, subscription: TopicSubscription, waiter: asyncio.Future[None]
    ) -> frozenset[str] | None:
        """What fired already; None where nothing did, and `waiter` will then be resolved by the next firing."""
        with self._lock:
            if subscription.fired or subscription.is_closed:
                fired = frozenset(subscription.fired)
                subscription.fired.clear()
                return fired
            subscription.waiter = waiter
            return None


class TopicSubscription:
    """The port's Subscription. For one waiting task at a time. Its fields belong to the hub and its lock."""

    def __init__(self, hub: Hub, topics: frozenset[str]) -> None:
        self._hub = hub
        self.topics = topics
        self.fired: set[str] = set()
        self.waiter: asyncio.Future[None] | None = None
        self.is_closed = False

    def note(self, topic: str) -> None:
        self.fired.add(topic)
        self.wake()

    def wake(self) -> None:
        waiter, self.waiter = self.waiter, None
        if waiter is None:
            return
        loop = waiter.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, waiter)

    async def wait(self, timeout_s: float) -> frozenset[str]:
        waiter = asyncio.get_running_loop().create_future()
        fired = self._hub.take_or_park(self, waiter)
        if fired is not None:
            return fired
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            pass  # an empty answer says so; what fired at that very moment is taken below
        return self._hub.take(self)

    def close(self) -> None:
        self._hub.remove(self)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
