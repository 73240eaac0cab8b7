"""Who an image's processes are, where its documents are a stranger's."""

import pytest

from runyard.host.images.layer_stream import LayerRefused
from runyard.host.images.users import ImageUser, find_user

MANY = "9" * 5000  # more digits than Python reads


@pytest.fixture
def layer(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(f"bob:x:1234:1235::/:/bin/sh\nbig:x:{MANY}:0::/:/bin/sh\n")
    (tmp_path / "etc/group").write_text(f"bob:x:1235:\nwide:x:{MANY}:bob\nstaff:x:50:bob\n")
    return tmp_path


@pytest.mark.parametrize("user", [MANY, f"{MANY}:0", f"0:{MANY}", f"bob:{MANY}", "big", "bob:wide"])
def test_a_number_of_endless_digits_is_refused(layer, user):
    with pytest.raises(LayerRefused):
        find_user(user, [layer])


def test_a_further_group_of_endless_digits_is_left_out(layer):
    assert find_user("bob", [layer]) == ImageUser(user_id=1234, group_id=1235, groups=(50,))
