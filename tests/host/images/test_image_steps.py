"""Steps in an image: its users, its files, its limits, over real overlays."""

import functools
from pathlib import Path

import pytest

from runyard.host.images.ids import ID_COUNT
from runyard.host.plan import PlanImage, PlanStep
from runyard.model.secret import SecretValue
from tests.host.images.layers import Stack, entry, link
from tests.host.world import open_world

pytestmark = pytest.mark.service

BASE = 732_000_000
PROGRAMS = (
    "sh cat chown chmod ls id su touch mkdir ln rm mv stat echo grep env find ps kill sleep dd mknod".split()
)
PASSWD = "root:x:0:0:root:/root:/bin/sh\nbob:x:1234:1235:Bob:/home/bob:/bin/sh\nmail:x:8:8::/:/bin/sh\n"
GROUP = "root:x:0:\nbob:x:1235:\nmail:x:8:bob\n"


@functools.cache
def busybox() -> bytes:
    return Path("/bin/busybox").read_bytes()


def base_entries():
    return [
        entry("bin"),
        entry("bin/busybox", busybox(), mode=0o755),
        *(link(f"bin/{name}", "busybox") for name in PROGRAMS),
        entry("etc"),
        entry("etc/passwd", PASSWD),
        entry("etc/group", GROUP),
        entry("etc/issue", "first\n", uid=8, gid=8),
        entry("home"),
        entry("home/bob", uid=1234, gid=1235, mode=0o700),
        entry("root", mode=0o700),
        entry("tmp", mode=0o1777),
    ]


@pytest.fixture
def stack(tmp_path):
    folder = tmp_path / "layers"
    folder.mkdir()
    stack = Stack(folder)
    stack.unpack(*base_entries())
    return stack


def image(stack: Stack, **fields) -> PlanImage:
    return PlanImage(layers=tuple(str(root) for root in reversed(stack.roots)), **fields)


def sh(script: str, name: str = "main", *, image: int | None = 0, **fields) -> PlanStep:
    env = {"PATH": "/bin:/usr/bin", "HOME": "/tmp/home"}
    return PlanStep(name=name, command=("/bin/sh", "-c", script), env=env, image=image, **fields)


async def run(world, *steps, images, **fields):
    base = fields.pop("id_base", BASE)
    return await world.run(
        *steps, images=tuple(images), id_base=base, user_id=base + images[0].user_id, **fields
    )


def the_only_number(stack: Stack) -> list[str]:
    return sorted(str(path) for root in stack.roots for path in root.rglob("*"))


async def test_root_in_an_image_owns_it_and_is_nobody_outside(tmp_path, stack):
    async with open_world(tmp_path) as world:
        ran = await run(
            world,
            sh("id -u; stat -c %u:%g /etc/issue; chown 33:44 /etc/issue; stat -c %u:%g /etc/issue; echo x > made; "
               "su bob -c 'id -u; id -G; touch /home/bob/x; stat -c %u /home/bob/x'; grep Cap /proc/self/status"),
            images=[image(stack)],
        )  # fmt: skip
        assert ran.text.split()[:8] == ["0", "8:8", "33:44", "1234", "1235", "8", "1234", "CapInh:"], ran.log(
            "000", "stderr"
        )
        assert (ran.directory.path / "workspace/made").stat().st_uid == BASE
        assert (ran.directory.path / "upper/0/etc/issue").stat().st_uid == BASE + 33
    assert (stack.roots[0] / "etc/issue").stat().st_uid == 8


async def test_an_images_own_user_runs_its_steps(tmp_path, stack):
    user = image(stack, user_id=1234, group_id=1235, groups=(8,))
    async with open_world(tmp_path) as world:
        ran = await run(
            world,
            sh("id -u; id -G; touch /workspace/x /outputs/x /tmp/home/x /home/bob/x && echo own; "
               "touch /etc/x || echo no; "
               "echo told > /dev/stderr; grep CapEff /proc/self/status"),
            images=[user],
        )  # fmt: skip
        assert ran.text.split() == ["1234", "1235", "8", "own", "no", "CapEff:", "0" * 16]
        assert b"told" in ran.log("000", "stderr")


async def test_steps_in_several_images_share_the_workspace_and_nothing_else(tmp_path, stack):
    other = Stack(tmp_path)
    other.unpack(*base_entries(), entry("etc/issue", "second\n"))
    async with open_world(tmp_path) as world:
        ran = await run(
            world,
            sh("cat /etc/issue; echo one > f; echo 1 > /etc/mark", "a"),
            sh("cat /etc/issue f; cat /etc/mark; echo two >> f; id -u", "b", image=1),
            sh("cat f /etc/mark", "c"),
            sh("cat f; test -e /etc/debian_version && echo host", "d", image=None),
            images=[image(stack), image(other, user_id=0)],
            artifacts=("f",),
        )
        assert ran.log("000") == b"first\n"
        assert ran.log("001") == b"second\none\n0\n"
        assert ran.log("002") == b"one\ntwo\n1\n"
        assert ran.log("003") == b"one\ntwo\nhost\n"
        assert (ran.directory.path / "artifacts/f").read_text() == "one\ntwo\n"


async def test_upper_layers_decide_and_whiteouts_hide(tmp_path, stack):
    stack.unpack(entry("etc/issue", "upper\n"), entry("etc/.wh.group", ""))
    async with open_world(tmp_path) as world:
        ran = await run(world, sh("cat /etc/issue; ls /etc"), images=[image(stack)])
        assert ran.text.split() == ["upper", "hostname", "hosts", "issue", "passwd", "resolv.conf"]


async def test_an_image_of_very_many_layers_runs(tmp_path, stack):
    for number in range(126):
        stack.unpack(entry(f"n{number}", "x"))
    async with open_world(tmp_path) as world:
        ran = await run(world, sh("ls -d /n*"), images=[image(stack)])
        assert len(ran.text.split()) == 126, ran.message


async def test_nothing_of_an_attempt_reaches_the_image(tmp_path, stack):
    before = the_only_number(stack)
    async with open_world(tmp_path) as world:
        ran = await run(
            world, sh("rm -r /etc/passwd /home; echo x > /bin/new; chmod 777 /bin"), images=[image(stack)]
        )
        assert ran.outcome.exit_code == 0
    assert the_only_number(stack) == before
    assert (stack.roots[0] / "bin").stat().st_mode & 0o777 == 0o755


# -- what an image that means harm cannot do -------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["tmp", "proc", "dev", "workspace", "outputs", "etc"])
async def test_a_link_at_a_mount_point_is_refused(tmp_path, path):
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    stack = Stack(tmp_path)
    stack.unpack(*(each for each in base_entries() if each[0].name != path and not each[0].name.startswith(path)),
                 link(path, f"/oldroot{outside}"))  # fmt: skip
    async with open_world(tmp_path) as world:
        ran = await run(world, sh("echo in"), images=[image(stack)])
        assert (ran.code, ran.text) == ("image", "")
    assert list(outside.iterdir()) == []


async def test_a_step_cannot_lead_the_next_ones_mount_points_elsewhere(tmp_path, stack):
    """They are busy while it runs, and looked over before the next begins."""
    paths = ("tmp", "proc", "dev", "workspace", "outputs", "etc", "etc/hosts")
    script = "; ".join(f"mv /{path} /moved; rm -rf /{path}; ln -s /oldroot/tmp /{path}" for path in paths)
    async with open_world(tmp_path) as world:
        ran = await run(
            world,
            sh(script, "a", condition="always"),
            sh("ls -d /moved; for p in tmp etc proc dev; do test -L /$p && echo $p; done; cat /etc/hosts", "b",
               condition="always"),
            images=[image(stack)],
        )  # fmt: skip
        assert ran.log("001").decode().splitlines()[:2] == ["/moved", "127.0.0.1 localhost runyard"]


async def test_a_link_at_a_file_of_ours_is_replaced_and_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    stack = Stack(tmp_path)
    stack.unpack(
        *base_entries(), link("etc/hosts", f"/oldroot{outside}"), link("etc/resolv.conf", "../run/x")
    )
    async with open_world(tmp_path) as world:
        ran = await run(world, sh("cat /etc/hosts"), images=[image(stack)])
        assert "localhost" in ran.text
    assert outside.read_text() == "untouched"


async def test_root_in_an_image_reaches_nothing_of_the_host(tmp_path, stack):
    (tmp_path / "admin.token").write_text("secret")
    script = (
        "mknod /tmp/sda b 8 0 && echo device; mknod /sda c 1 1 && echo device; "
        "echo x > /proc/sys/kernel/core_pattern && echo core; echo 1 > /proc/sysrq-trigger && echo sysrq; "
        "dd if=/proc/kcore of=/tmp/x bs=1 count=1 && echo kcore; "
        f"find / -name admin.token; cat {tmp_path}/admin.token; ls /oldroot /newroot /work; ls /proc/1/root/work; "
        "chown 0 /dev/null && echo null; chmod 777 /dev/null && echo null; rm /dev/null && echo null; "
        "chown 70000 /etc/issue && echo beyond; cat /proc/sys/kernel/random/boot_id > /dev/null; kill -9 1; "
        "busybox mount -t tmpfs x /mnt && echo mount; busybox unshare -m true && echo unshare"
    )
    async with open_world(tmp_path) as world:
        other = await run(
            world, sh("echo secret > /etc/mine"), images=[image(stack)], id_base=BASE + ID_COUNT
        )
        ran = await run(
            world,
            sh(f"{script}; cat {other.directory.path}/upper/0/etc/mine; exit 0"),
            sh("ls /proc/self/fd", "fds"),
            images=[image(stack)],
        )
        assert ran.text == "", ran.log("000", "stderr")
        assert ran.log("001").split() == [b"0", b"1", b"2", b"3"]


async def test_a_set_id_program_gives_no_rights(tmp_path, stack):
    stack.unpack(entry("set/id", busybox(), mode=0o4755, uid=0))
    async with open_world(tmp_path) as world:
        ran = await run(
            world,
            sh("/set/id -u; grep -E 'NoNewPrivs|CapEff' /proc/self/status"),
            images=[image(stack, user_id=1234)],
        )
        assert ran.text.split() == ["1234", "CapEff:", "0" * 16, "NoNewPrivs:", "1"], ran.log("000", "stderr")


async def test_what_the_attempt_writes_counts_for_its_disk(tmp_path, stack):
    from runyard.host.disk_watch import DiskLimits

    async with open_world(tmp_path) as world:
        ran = await run(
            world,
            sh("for i in 1 2 3 4 5 6 7 8 9; do dd if=/dev/zero of=/big$i bs=1M count=4; done; sleep 20"),
            images=[image(stack)],
            disk=DiskLimits(bytes_max=16 << 20),
        )
        assert ran.code == "disk"


async def test_what_a_range_of_ids_left_is_removed_whole(tmp_path, stack):
    async with open_world(tmp_path) as world:
        ran = await run(
            world,
            sh("mkdir -p /a/b /workspace/c; touch /a/b/x /workspace/c/y; chown -R 77:88 /a /workspace/c; "
               "chmod 0 /a/b /workspace/c; rm -r /home"),
            images=[image(stack)],
        )  # fmt: skip
        ran.directory.destroy(world.plan().cgroups)
        assert not ran.directory.path.exists()


@pytest.mark.parametrize(("user_id", "name"), [(0, "root"), (1234, "bob")])
async def test_a_secret_file_is_its_images_users_and_lies_in_memory(tmp_path, stack, user_id, name):
    secret = SecretValue(name="KEY", path="key", value=b"correct-horse")
    async with open_world(tmp_path) as world:
        plan = world.plan(
            sh("stat -c '%a %U' /run/secrets/key; cat /run/secrets/key; stat -f -c %T /run/secrets"),
            sh("ls /run/secrets; rm -rf /run/secrets; ln -s /workspace /run/secrets; true", "b"),
            sh("cat /run/secrets/key", "c", condition="always"),
            images=(image(stack, user_id=user_id, group_id=user_id and 1235),),
            user_id=BASE + user_id,
            id_base=BASE,
            has_secrets=True,
        )
        ran = await world.run_plan(plan, secrets=(secret,))
        assert ran.log() == f"400 {name}\n***tmpfs\n".encode()
        assert not any(
            (tmp_path / plan.name / folder / "key").exists() for folder in ("workspace", "upper/0/run")
        )
