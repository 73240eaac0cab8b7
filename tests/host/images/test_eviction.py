"""Which images go when the disk budget is full."""

from runyard.host.images.eviction import choose_evicted

IMAGES = {"old": ("base", "a"), "middle": ("base", "b"), "new": ("c",)}
USED = {"old": 1.0, "middle": 2.0, "new": 3.0}
BYTES = {"base": 10, "a": 1, "b": 2, "c": 4}


def choose(bytes_max: int, *in_use: str, layer_bytes=None):
    return choose_evicted(
        images=IMAGES,
        last_used=USED,
        layer_bytes=layer_bytes or BYTES,
        in_use=in_use,
        bytes_max=bytes_max,
    )


def test_nothing_goes_that_fits():
    assert choose(17).images == ()


def test_the_longest_unused_goes_without_the_layers_that_another_has():
    assert (choose(16).images, choose(16).layers) == (("old",), ("a",))


def test_what_is_shared_goes_with_the_last_that_has_it():
    assert (choose(4).images, choose(4).layers) == (("old", "middle"), ("a", "b", "base"))


def test_what_is_in_use_stays_whatever_is_wanted():
    chosen = choose(0, "base", "a")
    assert (chosen.images, chosen.layers, chosen.bytes_left) == (("middle", "new"), ("b", "c"), 11)


def test_layers_of_no_image_go_before_any_image():
    assert choose(17, layer_bytes={**BYTES, "stray": 5}).layers == ("stray",)
    assert choose(17, "stray", layer_bytes={**BYTES, "stray": 5}).images == ("old", "middle")
