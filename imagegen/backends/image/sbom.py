"""The bill of materials of a golden image, as CycloneDX 1.6: packages, executables, container images.

Lists what was put in, by what dpkg and apt know of packages, their copyright files, the Plan, and what Go's
linker wrote into executables; guesses nothing. The same image gives the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import imagegen
from imagegen.backends.image.debianpackages import DebianPackage
from imagegen.backends.image.gobuild import Module, read_build_info
from imagegen.backends.image.licences import Licences
from imagegen.backends.image.partitions import derive_uuid
from imagegen.plan.items import Binary, ContainerImage

if TYPE_CHECKING:
    from cyclonedx.model import HashType
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import License
    from packageurl import PackageURL

#: raised when the same inputs give another bill
VERSION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a bill is made from. ``distribution`` is such as ``debian-13``; ``sources`` maps what came from
    outside of Debian to its file on this machine; ``licences`` are by package name; ``epoch`` is in seconds
    since 1970.
    """

    name: str
    image_id: str
    distribution: str
    packages: tuple[DebianPackage, ...]
    sources: Mapping[Binary | ContainerImage, Path]
    epoch: int
    licences: Mapping[str, Licences] = field(default_factory=dict)


def emit_bill(bill: Bill) -> bytes:
    """The bill as CycloneDX 1.6 JSON."""
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output.json import JsonV1Dot6

    maker = Component(
        name="imagegen", version=imagegen.__version__, type=ComponentType.APPLICATION, bom_ref="imagegen"
    )
    subject = Component(
        name=bill.name, version=bill.image_id, type=ComponentType.OPERATING_SYSTEM, bom_ref="image"
    )
    parts = [*_describe_packages(bill), *_describe_sources(bill.sources)]
    modules, uses = _describe_modules(bill.sources)
    bom = Bom(
        serial_number=UUID(derive_uuid(bill.image_id, f"sbom/{bill.name}")),
        components=[*parts, *modules.values()],
        metadata=BomMetaData(
            tools=ToolRepository(components=[maker]),
            component=subject,
            timestamp=datetime.fromtimestamp(bill.epoch, UTC),
        ),
    )
    bom.register_dependency(subject, parts)
    for part in parts:
        bom.register_dependency(part, [modules[module] for module in uses.get(str(part.bom_ref.value), ())])
    text: str = JsonV1Dot6(bom).output_as_string(indent=2)
    return f"{text}\n".encode()


def _describe_packages(bill: Bill) -> Iterator[Component]:
    from cyclonedx.model import ExternalReference, ExternalReferenceType, Property, XsUri
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.contact import OrganizationalEntity
    from packageurl import PackageURL

    for package in bill.packages:
        url = PackageURL(
            type="deb",
            namespace="debian",
            name=package.name,
            version=package.version,
            qualifiers={"arch": package.architecture, "distro": bill.distribution},
        )
        links = [ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(package.homepage))]
        yield Component(
            name=package.name,
            version=package.version,
            type=ComponentType.LIBRARY,
            supplier=OrganizationalEntity(name="Debian", urls=[XsUri("https://www.debian.org/")]),
            publisher=package.maintainer or None,
            hashes=_describe_sum(package.sha256),
            licenses=_describe_licences(bill.licences.get(package.name)),
            external_references=links if package.homepage else (),
            properties=[Property(name="imagegen:source", value=package.source or package.name)],
            purl=url,
            bom_ref=f"deb:{package.name}:{package.architecture}",
        )


def _describe_sum(digest: str) -> list[HashType]:
    from cyclonedx.model import HashAlgorithm, HashType

    return [HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else []


def _describe_licences(licences: Licences | None) -> list[License]:
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
    from cyclonedx.spdx import is_supported_id

    if licences is None:
        return []
    if licences.expression is None:
        return [
            DisjunctiveLicense(id=name) if is_supported_id(name) else DisjunctiveLicense(name=name)
            for name in licences.names
        ]
    if is_supported_id(licences.expression):
        return [DisjunctiveLicense(id=licences.expression)]
    return [LicenseExpression(licences.expression)]


def _describe_sources(sources: Mapping[Binary | ContainerImage, Path]) -> Iterator[Component]:
    for source, file in sources.items():
        if isinstance(source, Binary):
            yield _describe_binary(source, file)
        else:
            yield _describe_image(source)


def _describe_binary(binary: Binary, file: Path) -> Component:
    """An executable with the sum of its own bytes, as they lie in the image."""
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    url = PackageURL(type="generic", name=binary.part, version=binary.version, subpath=binary.member or None)
    info = read_build_info(file)
    if info is not None and info.main is not None:
        url = _locate_module(info.main, info.path)
    return Component(
        name=binary.path.rpartition("/")[2],
        group=binary.part,
        version=binary.version,
        type=ComponentType.APPLICATION,
        hashes=_describe_sum(_hash_file(file)),
        purl=url,
        properties=[
            Property(name="imagegen:path", value=binary.path),
            *([Property(name="imagegen:go", value=info.go)] if info is not None else ()),
        ],
        bom_ref=f"file:{binary.path}",
    )


def _describe_modules(
    sources: Mapping[Binary | ContainerImage, Path],
) -> tuple[dict[str, Component], dict[str, list[str]]]:
    """The Go modules of all executables by reference, each once, and the references of those that each
    executable has, by its own.
    """
    found: dict[str, Module] = {}
    uses = {}
    for source, file in sources.items():
        info = read_build_info(file) if isinstance(source, Binary) else None
        if info is not None and isinstance(source, Binary):
            uses[f"file:{source.path}"] = [_refer_to(module) for module in info.dependencies]
            # vendored modules have no sum; another program may know it
            found |= {_refer_to(m): m for m in info.dependencies if m.h1 or _refer_to(m) not in found}
    return {ref: _describe_module(ref, module) for ref, module in sorted(found.items())}, uses


def _refer_to(module: Module) -> str:
    return f"go:{module.path}@{module.version}"


def _describe_module(ref: str, module: Module) -> Component:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name=module.path,
        version=module.version,
        type=ComponentType.LIBRARY,
        purl=_locate_module(module, module.path),
        properties=[Property(name="imagegen:go.sum", value=module.h1)] if module.h1 else (),
        bom_ref=ref,
    )


def _locate_module(module: Module, package: str) -> PackageURL:
    """``(devel)`` is a working tree, not a version."""
    from packageurl import PackageURL

    namespace, _, name = module.path.lower().rpartition("/")
    return PackageURL(
        type="golang",
        namespace=namespace or None,
        name=name,
        version=None if module.version == "(devel)" else module.version,
        subpath=package.removeprefix(module.path).strip("/") or None,
    )


def _describe_image(image: ContainerImage) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    repository, _, digest = image.reference.partition("@")
    repository, tag = _split_tag(repository)
    return Component(
        name=repository,
        version=tag or digest,
        type=ComponentType.CONTAINER,
        purl=PackageURL(
            type="oci",
            name=repository.rpartition("/")[2],
            version=digest or None,
            qualifiers={"repository_url": repository, **({"tag": tag} if tag else {})},
        ),
        bom_ref=f"oci:{image.reference}",
    )


def _split_tag(reference: str) -> tuple[str, str]:
    """Repository and tag; a colon before the last slash belongs to a port."""
    folder, slash, last = reference.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{folder}{slash}{name}", tag


def _hash_file(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
