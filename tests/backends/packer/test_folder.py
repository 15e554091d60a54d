"""The folder of one Packer build: which files, and that nothing in them is a user's value taken for HCL."""

from __future__ import annotations

import json
import re
from configparser import ConfigParser
from fnmatch import fnmatchcase
from pathlib import Path

import hcl2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen.backends.image.hygiene import HYGIENE, Action
from imagegen.backends.image.payload import entry_path, plan_payload
from imagegen.backends.packer.folder import BUILDERS, lower_packer, write_build
from imagegen.backends.packer.payload import LEFTOVERS
from imagegen.backends.packer.prose import quote_hcl, render_prose
from imagegen.backends.packer.seeds import KEY, lower_seeds
from imagegen.backends.packer.systems import SYSTEMS, Installer
from imagegen.backends.packer.versions import CURRENT, PackerStyle, choose_style
from imagegen.cli.examples import example_file
from imagegen.model.cluster import OperatingSystem, Target
from imagegen.plan.items import Phase
from imagegen.resources import find_resource
from tests.goldens import check_golden
from tests.judges.packers import MODULES, find_plugin
from tests.plan.plans import make_plan, try_plan, write_cluster


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    plan = make_plan(write_cluster(tmp_path, more="targets: [qemu, gce]\nimage: {size: 8GiB}\n"))
    role_plan = next(one for one in plan.role_plans if one.name == "worker")
    return dict(lower_packer(plan, role_plan, {}, PackerStyle.CURRENT).files)


def test_only_the_files_of_the_targets(files: dict[str, bytes]) -> None:
    assert {path for path in files if path.endswith(".hcl")} == {
        "build.pkr.hcl",
        "googlecompute.pkr.hcl",
        "plugins.pkr.hcl",
        "qemu.pkr.hcl",
        "variables.pkr.hcl",
    }
    build = hcl2.loads(files["build.pkr.hcl"].decode())["build"][0]
    wanted = [f"source.{builder}" for target in (Target.QEMU, Target.GCE) for builder in BUILDERS[target]]
    assert [source.strip('"') for source in build["sources"]] == wanted
    assert build["name"].strip('"') == "worker"


def test_hcl_is_word_for_word_that_of_the_repository(files: dict[str, bytes]) -> None:
    for name in ("qemu.pkr.hcl", "googlecompute.pkr.hcl", "variables.pkr.hcl", "plugins.pkr.hcl"):
        assert files[name] == find_resource("packer", name).read_bytes()


def test_every_variable_has_a_value_or_a_default(files: dict[str, bytes]) -> None:
    """And nothing is set that no file declares."""
    values = json.loads(files["image.auto.pkrvars.json"])
    declared: dict[str, bool] = {}
    for path, body in files.items():
        if path.endswith(".pkr.hcl"):
            for block in hcl2.loads(body.decode()).get("variable", ()):
                declared |= {name.strip('"'): "default" in entry for name, entry in block.items()}
    assert values.keys() <= declared.keys()
    assert {name for name, has_default in declared.items() if not has_default} == values.keys() & {
        name for name, has_default in declared.items() if not has_default
    }


def test_what_opens_an_account_is_sensitive_and_comes_from_outside() -> None:
    """Packer masks such values. The rest are paths, sizes and names; the key of the build is a path."""
    sensitive, names = set(), set()
    for path in find_resource("packer").glob("*.pkr.hcl"):
        for block in hcl2.loads(path.read_text()).get("variable", ()):
            for quoted, entry in block.items():
                name = quoted.strip('"')
                names.add(name)
                if entry.get("sensitive"):
                    sensitive.add(name)
                    assert entry["default"].strip('"') == "", f"{name} has a value in HCL"
    assert sensitive == {"gce_account_file", "gce_access_token"}
    suspicious = re.compile("token|secret|password|credential|account|user_data")
    assert {name for name in names if suspicious.search(name)} == sensitive


def test_every_plugin_is_pinned_to_the_one_that_judges() -> None:
    required = hcl2.loads(find_resource("packer", "plugins.pkr.hcl").read_text())["packer"][0]
    pins = {
        name: (entry["source"].strip('"'), entry["version"].strip('"'))
        for name, entry in required["required_plugins"][0].items()
        if isinstance(entry, dict)
    }
    builders = {
        builder.partition(".")[0].partition("-")[0] for several in BUILDERS.values() for builder in several
    }
    assert pins == {part: (find_plugin(part), f"= {MODULES[part][1].removeprefix('v')}") for part in builders}
    first = ".".join(map(str, CURRENT))
    assert required["required_version"].strip('"') == f">= {first}"


@pytest.mark.parametrize(
    ("version", "style"),
    [
        ((1, 6, 5), None),
        ((1, 6, 6), PackerStyle.COMPAT),
        ((1, 7, 0), None),
        ((1, 13, 9), None),
        ((1, 14, 0), PackerStyle.CURRENT),
        ((2, 0, 0), PackerStyle.CURRENT),
    ],
)
def test_which_packer_is_served(version: tuple[int, int, int], style: PackerStyle | None) -> None:
    assert choose_style(version) is style


def test_nothing_of_a_build_is_secret_or_a_password(files: dict[str, bytes]) -> None:
    for path, body in files.items():
        assert b"PRIVATE KEY" not in body, path
        if path.startswith("seeds/"):
            assert b"$6$" not in body
            assert b"$y$" not in body
    assert sum(KEY.encode() in body for body in files.values()) >= 2


def test_listeners_are_on_the_loopback(files: dict[str, bytes]) -> None:
    text = files["qemu.pkr.hcl"].decode()
    assert text.count("hostfwd=tcp:127.0.0.1:{{ .SSHHostPort }}-:22") == text.count("hostfwd=") == 1
    assert text.count("= local.qemu_arguments\n") == text.count('source "qemu"') == 2
    assert text.count('vnc_bind_address = "127.0.0.1"') == 2
    assert text.count("http_bind_address = var.qemu_http_bind_address") == 1


def test_the_old_packer_gets_no_plugins_and_no_newer_attributes(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path, more="targets: [gce]\nimage: {size: 8GiB}\n"))
    old = lower_packer(plan, plan.role_plans[0], {}, PackerStyle.COMPAT).files
    new = lower_packer(plan, plan.role_plans[0], {}, PackerStyle.CURRENT).files
    assert new.keys() - old.keys() == {"plugins.pkr.hcl"}
    differing = {path for path in old if old[path] != new[path]}
    assert differing == {"googlecompute.pkr.hcl", "README.md"}
    gone = set(new["googlecompute.pkr.hcl"].decode().splitlines()) - set(
        old["googlecompute.pkr.hcl"].decode().splitlines()
    )
    assert sorted(line.split() for line in gone) == [
        ["access_token", "=", "var.gce_access_token"],
        ["image_guest_os_features", "=", "var.gce_guest_os_features"],
    ]


@pytest.mark.parametrize("os", list(OperatingSystem))
def test_every_seed_trusts_the_key_and_its_system_finds_it(os: OperatingSystem) -> None:
    system = SYSTEMS[os]
    files = lower_seeds(system, os, "ops")
    installer = {path.rpartition("/")[2] for path in files if path.startswith("seeds/installer/")}
    assert installer == set(system.files)
    for folder in ("cidata", "installer"):
        assert any(KEY.encode() in body for path, body in files.items() if f"/{folder}/" in path)


def test_the_name_is_the_only_thing_written_into_hcl() -> None:
    text = write_build("etcd+master", tuple(BUILDERS))
    original = find_resource("packer", "build.pkr.hcl").read_text()
    assert text == original.replace('"ROLES"', '"etcd+master"')


@given(st.text(alphabet=st.characters(blacklist_categories=("Cs", "Cc")) | st.sampled_from('${}%"\\\n\t')))
def test_a_quoted_string_reads_back(text: str) -> None:
    """No interpolation, no directive, no end of the string, whatever is in it."""
    quoted = quote_hcl(text)
    body = quoted[1:-1]
    assert "\n" not in body
    assert "${" not in body.replace("$${", "")
    assert "%{" not in body.replace("%%{", "")
    unescaped = body.replace("$${", "${").replace("%%{", "%{")
    out, at = [], 0
    while at < len(unescaped):
        if unescaped[at] == "\\":
            out.append({"n": "\n", "t": "\t", "r": "\r"}.get(unescaped[at + 1], unescaped[at + 1]))
            at += 2
        else:
            assert unescaped[at] != '"'
            out.append(unescaped[at])
            at += 1
    assert "".join(out) == text


def test_a_template_with_an_unknown_name_is_an_error_and_values_are_no_templates() -> None:
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        render_prose("seeds", "ks.cfg.j2", {"user": "ops"})
    text = render_prose(
        "seeds", "ks.cfg.j2", {"user": "{{ 7 * 7 }}", "packages": ("{% raw %}",), "environment": "minimal"}
    )
    assert "{{ 7 * 7 }}" in text
    assert "{% raw %}" in text


def test_the_values_of_the_quickstart() -> None:
    plan = make_plan(find_resource("examples", "quickstart", "cluster.yaml"))
    role_plan = next(one for one in plan.role_plans if one.name == "worker")
    files = lower_packer(plan, role_plan, {}, PackerStyle.CURRENT).files
    shown = ("image.auto.pkrvars.json", "payload/entries", "payload/parts", "payload/images", "payload/units")
    check_golden("backends/packer-worker.txt", "".join(f"== {p}\n{files[p].decode()}" for p in shown))


def test_oracle_linux_7_brings_its_switched_off_repositories() -> None:
    plan, _ = try_plan(example_file("seed-s1"))
    assert plan is not None
    files = lower_packer(plan, plan.role_plans[0], {}, PackerStyle.CURRENT).files
    repositories = ConfigParser(interpolation=None)
    repositories.read_string(files["payload/repositories"].decode())
    assert set(repositories.sections()) == {"imagegen_ol7_addons", "imagegen_ol7_software_collections"}
    for name in repositories.sections():
        assert repositories[name]["gpgcheck"] == repositories[name]["enabled"] == "1"
    other = make_plan(find_resource("examples", "quickstart", "cluster.yaml"))
    files = lower_packer(other, other.role_plans[0], {}, PackerStyle.CURRENT).files
    assert "payload/repositories" not in files


@pytest.mark.parametrize("system", OperatingSystem)
def test_nothing_that_an_installer_tells_cloud_init_stays(system: OperatingSystem) -> None:
    """What keeps cloud-init from looking for seeds during the build would do so for ever."""
    texts = [body.decode() for body in lower_seeds(SYSTEMS[system], system, "ops").values()]
    written = set(re.findall(r"/(etc/cloud/cloud\.cfg\.d/[\w.-]+)", "".join(texts)))
    removed = [pattern for rule in LEFTOVERS for pattern in rule.pattern.split()]
    assert all(any(fnmatchcase(path, pattern) for pattern in removed) for path in written)
    if SYSTEMS[system].installer is Installer.AUTOINSTALL:  # subiquity writes its own
        written |= {"etc/cloud/cloud.cfg.d/99-installer.cfg", "etc/netplan/00-installer-config.yaml"}
        assert all(any(fnmatchcase(path, pattern) for pattern in removed) for path in written)
    else:
        assert written


def test_nothing_that_was_installed_is_cleaned_up(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path, more="targets: [qemu, gce]\nimage: {size: 8GiB}\n"))
    patterns = [
        pattern.split("/")
        for rule in (*HYGIENE, *LEFTOVERS)
        if rule.action is Action.REMOVE
        for pattern in rule.pattern.split()
    ]
    for role_plan in plan.role_plans:
        payload = plan_payload(tuple(item for item in role_plan.items if item.phase is Phase.BAKE))
        for entry in payload.entries:
            words = entry_path(entry).strip("/").split("/")
            for pattern in patterns:
                # a folder that is removed takes what lies in it along
                shared = zip(words, pattern, strict=False)
                is_hit = len(words) >= len(pattern) and all(fnmatchcase(*pair) for pair in shared)
                assert not is_hit, f"{entry_path(entry)}: {'/'.join(pattern)}"
