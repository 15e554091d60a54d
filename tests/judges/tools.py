"""Brings foreign validators: those that are installed, else Debian packages unpacked in a private folder.

Nothing is installed on the machine and no root is needed: packages come by ``apt-get download`` with lists of
our own and are unpacked by ``dpkg -x``. The archive is the one that the machine's apt configuration names.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

CACHE = Path(os.environ.get("IMAGEGEN_JUDGES") or Path.home() / ".cache" / "imagegen" / "judges")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"


class Unavailable(Exception):
    """The tool cannot be had here; the message is the reason that a skipped test prints."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to get a tool; ``suite`` None means only when it is installed, ``package`` is what to install."""

    program: str
    package: str
    suite: str | None = None
    #: what else must be unpacked beside ``package``
    libraries: tuple[str, ...] = ()
    #: path inside the unpacked packages
    path: str = ""
    #: an installed program is as good as the one from ``suite``
    installed: bool = False
    #: the program is a Python 3.11 script that finds its modules in the unpacked ``dist-packages``
    python: bool = False
    version: tuple[str, ...] = ("--version",)


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A validator that is ready to run."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    #: the folder with the unpacked packages, or None for an installed program
    root: Path | None = None

    def run(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        stdin: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run the tool to its end; the caller looks at ``returncode``, ``stdout`` and ``stderr``."""
        done = subprocess.run(
            [*self.argv, *(str(a) for a in arguments)],
            cwd=cwd,
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            env=self.environment(env),
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment for starting ``argv`` by other means, such as a daemon that keeps running."""
        base = {"PATH": _PATH, "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        return base | dict(self.env) | dict(extra or {})


_CLOUD_INIT_MODULES = (
    "python3-attr",
    "python3-blinker",
    "python3-certifi",
    "python3-chardet",
    "python3-configobj",
    "python3-idna",
    "python3-jinja2",
    "python3-json-pointer",
    "python3-jsonpatch",
    "python3-jsonschema",
    "python3-jwt",
    "python3-markupsafe",
    "python3-netifaces",
    "python3-oauthlib",
    "python3-pyrsistent",
    "python3-requests",
    "python3-serial",
    "python3-six",
    "python3-urllib3",
    "python3-yaml",
    "libyaml-0-2",
)

RECIPES: Mapping[str, Recipe] = {
    "cloud_init_bookworm": Recipe(
        program="cloud-init",
        package="cloud-init",
        suite="bookworm",
        libraries=_CLOUD_INIT_MODULES,
        path="usr/bin/cloud-init",
        python=True,
    ),
    "cloud_init_sid": Recipe(
        program="cloud-init",
        package="cloud-init",
        suite="sid",
        libraries=_CLOUD_INIT_MODULES,
        path="usr/bin/cloud-init",
        python=True,
    ),
    "zlint": Recipe(
        program="zlint", package="zlint", suite="sid", path="usr/bin/zlint", version=("-version",)
    ),
    "kubectl": Recipe(
        program="kubectl",
        package="kubectl",
        suite="sid",
        path="usr/bin/kubectl",
        version=("version", "--client"),
    ),
    "skopeo": Recipe(
        program="skopeo",
        package="skopeo",
        suite="bookworm",
        path="usr/bin/skopeo",
        libraries=("libgpgme11", "libassuan0", "libdevmapper1.02.1"),
        installed=True,
    ),
    "etcd": Recipe(program="etcd", package="etcd-server", suite="sid", path="usr/bin/etcd"),
    "etcdctl": Recipe(
        program="etcdctl", package="etcd-client", suite="sid", path="usr/bin/etcdctl", version=("version",)
    ),
    "etcd_bookworm": Recipe(
        program="etcd", package="etcd-server", suite="bookworm", path="usr/bin/etcd", installed=False
    ),
    "containerd": Recipe(
        program="containerd", package="containerd", suite="sid", path="usr/bin/containerd", installed=False
    ),
    "netplan": Recipe(
        program="netplan",
        package="netplan.io",
        suite="bookworm",
        libraries=("libnetplan0",),
        path="usr/libexec/netplan/generate",
        version=("--help",),
    ),
    "shellcheck": Recipe(
        program="shellcheck",
        package="shellcheck",
        suite="bookworm",
        libraries=("libffi8", "libgmp10"),
        path="usr/bin/shellcheck",
        installed=True,
    ),
    "xorriso": Recipe(
        program="xorriso",
        package="xorriso",
        suite="bookworm",
        libraries=("libburn4", "libisofs6", "libisoburn1", "libjte2"),
        path="usr/bin/xorriso",
        installed=True,
        version=("-version",),
    ),
    "isoinfo": Recipe(
        program="isoinfo",
        package="genisoimage",
        suite="bookworm",
        libraries=("libmagic1",),
        path="usr/bin/isoinfo",
        installed=True,
        version=("-version",),
    ),
    "haproxy": Recipe(
        program="haproxy",
        package="haproxy",
        suite="bookworm",
        libraries=("liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1", "libpcre2-8-0"),
        path="usr/sbin/haproxy",
        installed=True,
        version=("-v",),
    ),
    "nft": Recipe(
        program="nft",
        package="nftables",
        suite="bookworm",
        libraries=(
            "libnftables1",
            "libnftnl11",
            "libmnl0",
            "libjansson4",
            "libxtables12",
            "libedit2",
            "libbsd0",
        ),
        path="usr/sbin/nft",
        installed=True,
    ),
    "chronyd": Recipe(
        program="chronyd",
        package="chrony",
        suite="bookworm",
        libraries=("libtomcrypt1", "libtommath1", "libseccomp2", "libcap2"),
        path="usr/sbin/chronyd",
        installed=True,
        version=("-v",),
    ),
    "age": Recipe(program="age", package="age", suite="bookworm", path="usr/bin/age", installed=True),
    "sgdisk": Recipe(
        program="sgdisk",
        package="gdisk",
        suite="bookworm",
        libraries=("libpopt0",),
        path="sbin/sgdisk",
        installed=True,
    ),
    "openssl": Recipe(program="openssl", package="openssl", installed=True, version=("version",)),
    "blkid": Recipe(program="blkid", package="util-linux", installed=True),
    "systemd_analyze": Recipe(program="systemd-analyze", package="systemd", installed=True),
    "systemd_sysusers": Recipe(program="systemd-sysusers", package="systemd", installed=True),
    "visudo": Recipe(
        program="visudo",
        package="sudo",
        suite="bookworm",
        path="usr/sbin/visudo",
        installed=True,
        version=("-V",),
    ),
    "sshd": Recipe(
        program="sshd",
        package="openssh-server",
        suite="bookworm",
        libraries=("libwrap0",),
        path="usr/sbin/sshd",
        installed=True,
        version=("-V",),
    ),
}


@cache
def acquire_tool(name: str) -> Tool:
    """The tool of that name in ``RECIPES``, downloaded on first use. Raises Unavailable with the reason."""
    recipe = RECIPES[name]
    if recipe.installed and (found := shutil.which(recipe.program, path=_PATH)):
        return Tool(name=name, argv=(found,))
    if recipe.suite is None:
        raise Unavailable(f"{recipe.program} is not installed (Debian package {recipe.package})")
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise Unavailable(f"{recipe.program}: apt-get and dpkg are needed to unpack {recipe.package}")
    root = unpack_package(recipe.suite, recipe.package)
    roots = [root, *(unpack_package("bookworm", library) for library in recipe.libraries)]
    return _make_tool(name, recipe, root, roots)


def _make_tool(name: str, recipe: Recipe, root: Path, roots: list[Path]) -> Tool:
    program = root / recipe.path
    if not program.exists():
        raise Unavailable(f"{recipe.package} of {recipe.suite} has no {recipe.path}")
    libraries = ":".join(
        str(path)
        for each in roots
        for pattern in ("usr/lib/*-linux-gnu", "lib/*-linux-gnu", "usr/libexec/sudo")
        for path in each.glob(pattern)
    )
    if not recipe.python:
        return Tool(name=name, argv=(str(program),), env={"LD_LIBRARY_PATH": libraries}, root=root)
    python = Path("/usr/bin/python3.11")
    if not python.exists():
        raise Unavailable(f"{recipe.program}: its unpacked modules need Debian's python3.11")
    modules = ":".join(str(each / "usr/lib/python3/dist-packages") for each in roots)
    env = {"PYTHONPATH": modules, "LD_LIBRARY_PATH": libraries, "PYTHONDONTWRITEBYTECODE": "1"}
    return Tool(name=name, argv=(str(python), str(program)), env=env, root=root)


def unpack_package(suite: str, package: str) -> Path:
    """The folder with the files of a Debian package, fetched once; raises Unavailable."""
    target = CACHE / suite / package
    if target.is_dir():
        return target
    with _lock():
        if target.is_dir():
            return target
        apt = _prepare_apt(suite)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="unpack-") as work:
            _run_apt([*apt, "download", package], cwd=Path(work), what=f"{package} of {suite}")
            tree = Path(work) / "tree"
            for deb in Path(work).glob("*.deb"):
                subprocess.run(["dpkg", "-x", deb, tree], check=True, capture_output=True, timeout=120)
            tree.rename(target)
    return target


@contextmanager
def _lock() -> Iterator[None]:
    """Several test workers may want the same tool at once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@cache
def find_archive(folder: Path = Path("/etc/apt")) -> str:
    """The address of the Debian archive in apt's own sources; raises Unavailable.

    Read from the files, because ``apt-get indextargets`` is silent until lists were downloaded.
    """
    for path in (folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))):
        text = path.read_text("utf-8", "replace") if path.is_file() else ""
        pattern = r"^URIs:(.*)$" if path.suffix == ".sources" else r"^deb(?:\s+\[[^\]]*\])?\s+(\S+)"
        for address in " ".join(re.findall(pattern, text, re.MULTILINE)).split():
            if address.rstrip("/").endswith("/debian"):
                return address
    raise Unavailable("this machine's apt configuration names no Debian archive")


@cache
def _prepare_apt(suite: str) -> tuple[str, ...]:
    """The apt-get command line with state of our own; downloads the lists when there are none."""
    if not KEYRING.exists():
        raise Unavailable("debian-archive-keyring is not installed")
    state = CACHE / f"apt-{suite}"
    for folder in ("lists/partial", "archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    sources = state / "sources.list"
    sources.write_text(f"deb [signed-by={KEYRING}] {find_archive()} {suite} main\n")
    (state / "status").touch()
    options = {
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": state / "none",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Acquire::Retries": "3",
    }
    apt = ("apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items()))
    if not any((state / "lists").glob("*_Packages*")):
        _run_apt([*apt, "update"], cwd=state, what=f"package lists of {suite}")
    return apt


def _run_apt(argv: list[str], *, cwd: Path, what: str) -> None:
    try:
        done = subprocess.run(
            argv, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{what}: no answer from the Debian archive in 300 s") from None
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip() or "apt-get failed").splitlines()[-1]
        raise Unavailable(f"{what} cannot be downloaded: {reason}")
