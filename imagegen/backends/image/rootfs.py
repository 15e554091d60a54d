"""Root file systems by mmdebstrap: a base that several roles share, with a role's packages, and one role.

All run as root or, in a user namespace, as an ordinary user; mmdebstrap decides nothing, ``choose_mode``
does.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imagegen.backends.image.hygiene import render_table
from imagegen.backends.image.partitions import DiskLayout
from imagegen.backends.image.staging import choose_memory, link_or_copy, open_staging
from imagegen.errors import ImagegenError, MissingToolError
from imagegen.model.cluster import OperatingSystem
from imagegen.run import Runner, Tool, find_tool

TOOLS = (
    Tool(name="mmdebstrap", package="mmdebstrap", purpose="make the base system"),
    Tool(name="tar", package="tar", purpose="unpack the base system"),
    Tool(name="unshare", package="util-linux", purpose="keep the build's mounts apart"),
    Tool(name="mke2fs", package="e2fsprogs", purpose="make the root file system"),
)

_SUITES = {OperatingSystem.DEBIAN_12: "bookworm", OperatingSystem.DEBIAN_13: "trixie"}
CUSTOMIZE = Path(__file__).with_name("customize.sh")
PREPARE = Path(__file__).with_name("prepare.sh")

#: documentation and translations are not for machines that nobody logs in to
DPKG_OPTIONS = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)
APT_OPTIONS = ('Acquire::Languages "none"', 'Acquire::Retries "5"')
#: the system so far, and the package lists it was made from
BASE_TAR = "base.tar"
LISTS = "lists.tar"
#: Debian's archive keeps what it replaced for a day at least, and changes four times a day
_LISTS_SECONDS = 6 * 3600
_UNPACK_LISTS = f'tar -C "$1" --numeric-owner -xf "$WORK/{LISTS}"'
_UNPACK = 'tar -C "$1" --numeric-owner --xattrs --xattrs-include="*" -xf "$WORK/base.tar"'
#: As mmdebstrap itself installs packages upon an essential system. For the variant custom it would unpack
#: every package twice, because there might be no dpkg.
_INSTALL = (
    'APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get --quiet=2 --yes --config-file="$WORK/install.conf"'
    ' -o "DPkg::Chroot-Directory=$1" install'
)
#: Nobody is asked anything, so no package is searched for questions; and apt does not write a cache of the
#: lists, which it would make anew when it is done.
_INSTALL_CONFIG = """\
#clear DPkg::Pre-Install-Pkgs;
Dir::Cache { pkgcache ""; srcpkgcache ""; };
Dir::Bin::dpkg "env";
DPkg::Options { "--unset=TMPDIR"; "dpkg"; };
"""
#: A system that is not finished has nothing to lose in a power cut, so dpkg need not wait for the disk after
#: every file; the hygiene table takes the setting out again.
_HURRY = 'mkdir -p "$1/etc/dpkg/dpkg.cfg.d"; echo force-unsafe-io >"$1/etc/dpkg/dpkg.cfg.d/unsafe-io"'
#: $1 bytes at most
_IN_MEMORY = 'mount -t tmpfs -o "mode=0755,size=$1" imagegen "$TMPDIR" && shift && exec "$@"'
#: as bad as a dead network: an apt that waits for a proxy or a lock
_TIMEOUT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSystem:
    """What the shared base layer is made from; ``snapshot`` is an archive time stamp or None for today's
    archive.
    """

    os: OperatingSystem
    packages: tuple[str, ...]
    snapshot: str | None

    @property
    def suite(self) -> str:
        """The archive's name of the release; raises ImagegenError for a system that is not Debian."""
        try:
            return _SUITES[self.os]
        except KeyError:
            raise ImagegenError(
                f"images are built directly for Debian only, not for {self.os}",
                hint="use image.mode: stock, or Packer, for this system",
            ) from None

    def sources(self) -> list[str]:
        """The archive arguments for mmdebstrap: none means the machine's default mirror of the suite."""
        if self.snapshot is None:
            return []
        base = "http://snapshot.debian.org/archive"
        return [
            f"deb [check-valid-until=no] {base}/debian/{self.snapshot} {self.suite} main",
            f"deb [check-valid-until=no] {base}/debian-security/{self.snapshot} {self.suite}-security main",
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSystem:
    """What one role adds to its packages. ``payload`` is a tar file, ``sysusers`` and ``units`` are tables of
    ``customize.sh``.
    """

    suite: BaseSystem
    payload: Path
    sysusers: str
    units: str
    layout: DiskLayout
    squashfs: bool


def choose_mode() -> str:
    """``root`` or ``unshare``; raises MissingToolError that says which of the two is missing and why."""
    if os.geteuid() == 0:
        return "root"
    if find_tool("newuidmap") is None:
        raise MissingToolError(
            "neither root nor newuidmap, which an ordinary user needs to use a user namespace",
            hint="run as root, or apt-get install uidmap",
        )
    user = _user_name()
    if not any(line.split(":")[0] in {user, str(os.getuid())} for line in _read_lines(Path("/etc/subuid"))):
        raise MissingToolError(
            f"neither root nor a range of subordinate user ids for {user}",
            hint=f"run as root, or: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
        )
    for knob, wanted in (("kernel/unprivileged_userns_clone", "1"), ("user/max_user_namespaces", None)):
        value = "".join(_read_lines(Path("/proc/sys") / knob)).strip()
        if value and (value == "0" or (wanted is not None and value != wanted)):
            raise MissingToolError(
                f"neither root nor user namespaces: {knob.replace('/', '.')} is {value}",
                hint=f"run as root, or: sysctl -w {knob.replace('/', '.')}={wanted or 15000}",
            )
    return "unshare"


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def build_base(runner: Runner, base: BaseSystem, target: Path, *, epoch: int) -> None:
    """Write the base system as ``base.tar`` into ``target``, with the package lists it was made from as
    ``lists.tar``; ``epoch`` is the latest time stamp in seconds since 1970.
    """
    options = ["--variant=minbase", f"--include={','.join(base.packages)}"]
    options.append('--essential-hook=sh "$WORK/prepare.sh" "$1"')
    texts = {"prepare.sh": PREPARE.read_text(), "save-lists": ""}
    with _open_work(runner, texts, {}) as (work, out):
        _run_packages(runner, base, options, work, out, target, epoch=epoch)
        _move(out / LISTS, target / LISTS)


def add_packages(
    runner: Runner, base: BaseSystem, packages: tuple[str, ...], base_layer: Path, target: Path, *, epoch: int
) -> None:
    """Write the base system with some more packages as ``base.tar`` into ``target``, and ``dpkg-status``.

    ``base_layer`` is what ``build_base`` filled. Its package lists are taken while they are young; later ones
    come into ``target``, too.
    """
    options = ["--variant=custom", f"--setup-hook={_UNPACK}"]
    options.append(f"--customize-hook={_INSTALL} {' '.join(packages)}")
    files = {BASE_TAR: base_layer / BASE_TAR}
    texts = {"install.conf": _INSTALL_CONFIG}
    if base.snapshot is not None or _is_young(base_layer / LISTS):
        files[LISTS] = base_layer / LISTS
        options += [f"--setup-hook={_UNPACK_LISTS}", "--skip=update"]
    else:
        texts["save-lists"] = ""
    with _open_work(runner, texts, files) as (work, out):
        _run_packages(runner, base, options, work, out, target, epoch=epoch)
        _move_all(out, target)


def _is_young(lists: Path) -> bool:
    """Whether the archive still has what these lists name: what is replaced there stays for a while."""
    return time.time() - lists.stat().st_mtime < _LISTS_SECONDS


@contextmanager
def _open_work(runner: Runner, texts: dict[str, str], files: dict[str, Path]) -> Iterator[tuple[Path, Path]]:
    """A folder with everything that the hooks read, and one in it for what they write."""
    mode = choose_mode()
    with open_staging(runner, mode) as work:
        # In a user namespace its root writes there, who is somebody else outside. Nobody else can: the name
        # is random and the folder above cannot be listed.
        out = Path(tempfile.mkdtemp(prefix="out-", dir=work))
        if mode == "unshare":
            out.chmod(0o777)
        shared = {"customize.sh": CUSTOMIZE.read_text(), "hygiene": render_table()}
        _fill_work(work, shared | texts, files)
        yield work, out


def _run_packages(
    runner: Runner,
    base: BaseSystem,
    options: list[str],
    work: Path,
    out: Path,
    target: Path,
    *,
    epoch: int,
) -> None:
    mode = choose_mode()
    argv = [*_isolate(mode), "mmdebstrap", f"--mode={mode}", "--format=tar", *_list_settings(), *options]
    # the package lists go with everything else that the hygiene table names
    argv += ["--skip=check/empty,cleanup/apt,tar-in/dev,output/dev"]
    argv += [f"--setup-hook={_HURRY}", '--customize-hook=sh "$WORK/customize.sh" "$1" tidy']
    argv += [base.suite, str(target / BASE_TAR), *base.sources()]
    runner.run(argv, env=_environment(work, out, epoch), timeout=_TIMEOUT_SECONDS)


def build_role(runner: Runner, role: RoleSystem, system_tar: Path, target: Path, *, epoch: int) -> None:
    """Write ``disk.raw`` with the root file system in its place and nothing else, ``vmlinuz``,
    ``initrd.img``, ``dpkg-status`` (and ``root.squashfs``) into ``target``. Installs nothing: ``system_tar``
    holds every package.
    """
    mode = choose_mode()
    texts = {"sysusers.conf": role.sysusers, "units": role.units, "ext4": _place_root(role.layout)}
    if role.squashfs:
        texts["squashfs"] = ""
    with _open_work(runner, texts, {BASE_TAR: system_tar, "payload.tar": role.payload}) as (work, out):
        (work / "view").mkdir()
        argv = [*_isolate(mode), "mmdebstrap", f"--mode={mode}", "--variant=custom", "--format=null"]
        # cleanup comes after the image is made and, without its files in /tmp, would clean the host's apt
        argv += ["--skip=check/empty,update,cleanup,tar-in/dev,output/dev"]
        argv += [f"--setup-hook={_UNPACK}", '--customize-hook=sh "$WORK/customize.sh" "$1"']
        argv += [role.suite.suite, "-", *role.suite.sources()]
        runner.run(argv, env=_environment(work, out, epoch), timeout=_TIMEOUT_SECONDS)
        _move_all(out, target)


def _place_root(layout: DiskLayout) -> str:
    root = layout.root
    return f"{layout.size_bytes} {root.offset_bytes} {root.size_bytes >> 10} {layout.root_uuid}\n"


def _isolate(mode: str) -> list[str]:
    """As root, mmdebstrap mounts where everybody sees it, and a kill would leave mounts and programs.

    In a namespace of our own its folder can lie in memory, too, and nothing of it is ever left.
    """
    if mode != "root":
        return []
    argv = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc"]
    size = choose_memory()
    if size is not None:
        argv += ["sh", "-c", _IN_MEMORY, "sh", str(size)]
    return argv


def _list_settings() -> list[str]:
    return [
        *(f"--aptopt={option}" for option in APT_OPTIONS),
        *(f"--dpkgopt={option}" for option in DPKG_OPTIONS),
    ]


def _fill_work(work: Path, texts: dict[str, str], files: dict[str, Path]) -> None:
    # In a user namespace the root of the namespace is nobody outside: what it reads must be readable by all.
    for name, text in texts.items():
        (work / name).write_text(text)
        (work / name).chmod(0o644)
    for name, path in files.items():
        link_or_copy(path, work / name)
        if (work / name).stat().st_mode & 0o444 != 0o444:
            (work / name).chmod(0o644)


def _move_all(out: Path, target: Path) -> None:
    for made in sorted(out.iterdir()):
        _move(made, target / made.name)


def _move(source: Path, target: Path) -> None:
    """Move a file that may belong to a subordinate id: take a copy that is ours, keeping holes."""
    from imagegen.backends.image.disk import copy_sparse

    if source.stat().st_uid == os.geteuid() and source.stat().st_dev == target.parent.stat().st_dev:
        source.rename(target)
        return
    with open(target, "wb") as handle:
        handle.truncate(source.stat().st_size)
    # as customize.sh made it, whatever the umask is; modes are seen on an ISO
    target.chmod(0o644)
    copy_sparse(source, target, 0)


def _environment(work: Path, out: Path, epoch: int) -> dict[str, str]:
    return {
        "SOURCE_DATE_EPOCH": str(epoch),
        "DEBIAN_FRONTEND": "noninteractive",
        "LC_ALL": "C.UTF-8",
        # what Python compiles is what packages ask for, not what happens to be imported meanwhile
        "PYTHONDONTWRITEBYTECODE": "1",
        "WORK": str(work),
        "OUT": str(out),
        # everything that it makes lies in one place, where the next run finds it after a kill
        "TMPDIR": str(work / "tmp"),
    }
