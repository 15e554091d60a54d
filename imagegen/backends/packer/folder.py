"""One Packer build as files: hand-written HCL of ``packer/``, a cluster's values, payload, seeds, tests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from imagegen.backends.output import OutputFolder
from imagegen.backends.packer.payload import PackerPayload, lower_payload
from imagegen.backends.packer.prose import quote_hcl, render_prose
from imagegen.backends.packer.seeds import lower_seeds
from imagegen.backends.packer.systems import SYSTEMS, System
from imagegen.backends.packer.versions import PackerStyle, adapt_hcl
from imagegen.emit import emit_json
from imagegen.fetch.images import parse_reference
from imagegen.model.cluster import Cluster, ImageMode, Target
from imagegen.model.systems import SYSTEMS as OS_FACTS
from imagegen.model.systems import Repository
from imagegen.plan.items import ContainerImage
from imagegen.plan.parts import list_parts
from imagegen.plan.plan import Plan, RolePlan
from imagegen.resources import find_resource

#: target → its HCL file, and the builders that are in it
HCL_OF = {
    Target.QEMU: "qemu.pkr.hcl",
    Target.VIRTUALBOX: "virtualbox.pkr.hcl",
    Target.VMWARE: "vmware.pkr.hcl",
    Target.GCE: "googlecompute.pkr.hcl",
}
BUILDERS = {
    Target.QEMU: ("qemu.cloud", "qemu.installer"),
    Target.VIRTUALBOX: ("virtualbox-iso.installer", "virtualbox-ovf.appliance"),
    Target.VMWARE: ("vmware-iso.installer", "vmware-vmx.machine"),
    Target.GCE: ("googlecompute.image",),
}
_SCRIPTS = ("install.sh", "finish.sh", "clean-up.sh")
_PLACEHOLDER = '  name = "ROLES"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class PackerFolder:
    """The folder ``packer/ROLES``: text files by path, and the parts that ``downloads/`` must hold."""

    role_plan: RolePlan
    files: Mapping[str, bytes]
    payload: PackerPayload

    @property
    def path(self) -> str:
        return f"packer/{self.role_plan.name}"


def lower_packer(
    plan: Plan, role_plan: RolePlan, checksums: Mapping[str, str], style: PackerStyle
) -> PackerFolder:
    """The Packer build of one set of roles; pure.

    ``checksums`` maps URLs of downloads to SHA-256 sums, from the lock file. ``style`` says for which
    Packer.
    """
    cluster = plan.cluster
    system = SYSTEMS[cluster.image.os]
    payload = lower_payload(
        role_plan.items,
        {(part.name, part.version): part for part in list_parts(plan)},
        checksums,
        _pin_images(role_plan, checksums),
        build_user=cluster.access.user,
    )
    texts = _list_hcl(cluster, role_plan, style)
    texts["image.auto.pkrvars.json"] = emit_json(_list_values(cluster, role_plan, system))
    texts["README.md"] = _render_readme(cluster, role_plan, style)
    texts[".gitignore"] = "/output/\n/work/\n"
    # Packer wants the folder even where nothing is downloaded into it
    texts["downloads/.gitignore"] = "*\n!.gitignore\n"
    texts["new-key.sh"] = _read("new-key.sh")
    for name in ("run.sh", "test_image.py"):
        texts[f"verify/{name}"] = _read("verify", name)
    for name in _SCRIPTS:
        texts[f"payload/{name}"] = _read(name)
    repositories = OS_FACTS[cluster.image.os].list_repositories(cluster.runtime)
    if repositories:
        texts["payload/repositories"] = "".join(map(_emit_repository, repositories))
    files = {path: text.encode() for path, text in texts.items()}
    files |= lower_seeds(system, cluster.image.os, cluster.access.user)
    return PackerFolder(role_plan=role_plan, files=files | dict(payload.files), payload=payload)


def _emit_repository(repository: Repository) -> str:
    """A section of yum.repos.d(5): repositories that the system brings switched off."""
    return (
        f"[{repository.name}]\nname={repository.title}\nbaseurl={repository.url}\n"
        f"gpgcheck=1\ngpgkey={repository.key}\nenabled=1\n"
    )


def _pin_images(role_plan: RolePlan, checksums: Mapping[str, str]) -> dict[str, str]:
    """The digests of the container images that are pinned, by reference."""
    references = [item.reference for item in role_plan.items if isinstance(item, ContainerImage)]
    images = {text: parse_reference(text) for text in references}
    return {text: checksums.get(image.download.url) or image.digest for text, image in images.items()}


def _read(*parts: str) -> str:
    return find_resource("packer", *parts).read_text(encoding="utf-8")


def _list_hcl(cluster: Cluster, role_plan: RolePlan, style: PackerStyle) -> dict[str, str]:
    wanted = tuple(target for target in HCL_OF if target in cluster.targets)
    names = ["variables.pkr.hcl", *(HCL_OF[target] for target in wanted)]
    texts = {name: _read(name) for name in names}
    texts["build.pkr.hcl"] = write_build(role_plan.name, wanted)
    texts["plugins.pkr.hcl"] = _read("plugins.pkr.hcl")
    return adapt_hcl(texts, style)


def write_build(name: str, targets: tuple[Target, ...]) -> str:
    """``build.pkr.hcl`` with the two things that Packer takes no variables for: its name and its builders."""
    text = _read("build.pkr.hcl")
    if text.count(_PLACEHOLDER) != 1:
        raise ValueError("build.pkr.hcl has lost the line of its name")
    text = text.replace(_PLACEHOLDER, f"  name = {quote_hcl(name)}\n")
    unwanted = {
        f'    "source.{b}",' for target in BUILDERS if target not in targets for b in BUILDERS[target]
    }
    return "".join(line for line in text.splitlines(keepends=True) if line.rstrip("\n") not in unwanted)


def _list_values(cluster: Cluster, role_plan: RolePlan, system: System) -> dict[str, object]:
    values: dict[str, object] = {
        "name": f"{cluster.name}-{role_plan.name}",
        "user": cluster.access.user,
        "disk_mib": cluster.image.size_mib,
        "base_image": system.cloud_image,
        "base_checksum": system.cloud_checksum,
        "iso_url": system.iso,
        "iso_checksum": system.iso_checksum,
        "installer_files": list(system.files),
        "installer_label": system.label,
        "boot_command": list(system.boot_command),
    }
    if Target.VIRTUALBOX in cluster.targets:
        values["virtualbox_guest_os_type"] = system.virtualbox_type
    if Target.VMWARE in cluster.targets:
        values["vmware_guest_os_type"] = system.vmware_type
    if Target.GCE in cluster.targets:
        values |= {
            "gce_source_image_family": system.gce_family,
            "gce_source_image_project": system.gce_project,
            "gce_image_family": f"{cluster.name}-{role_plan.name.replace('+', '-')}",
            "gce_image_labels": {"cluster": cluster.name, "roles": role_plan.name.replace("+", "-")},
        }
    return values


def _render_readme(cluster: Cluster, role_plan: RolePlan, style: PackerStyle) -> str:
    targets = [target.value for target in HCL_OF if target in cluster.targets]
    builders = [b for target in HCL_OF if target in cluster.targets for b in BUILDERS[target]]
    view = {
        "cluster": cluster.name,
        "roles": role_plan.name,
        "targets": targets,
        "builders": builders,
        "compat": style is PackerStyle.COMPAT,
        "user": cluster.access.user,
    }
    return render_prose("prose", "README.md.j2", view)


def write_packer(folder: OutputFolder, plan: Plan, checksums: Mapping[str, str], style: PackerStyle) -> None:
    """Stage the Packer builds of every set of roles; none when nodes start from stock images."""
    if plan.cluster.image.mode is not ImageMode.GOLDEN:
        return
    for role_plan in plan.role_plans:
        build = lower_packer(plan, role_plan, checksums, style)
        for path, body in build.files.items():
            folder.write(f"{build.path}/{path}", body, inputs=hashlib.sha256(body).hexdigest()[:16])
