"""Which release parts a Plan needs: complete by construction, because it reads the Plan's own items."""

from __future__ import annotations

import dataclasses

from imagegen.fetch import Download
from imagegen.kubernetes.releases import Part, load_releases
from imagegen.plan.items import Binary, ContainerImage
from imagegen.plan.plan import Plan


def list_parts(plan: Plan) -> tuple[Part, ...]:
    """Every part that some machine of the cluster needs, each once, sorted by name."""
    items = [item for role_plan in plan.role_plans for item in role_plan.items]
    releases = load_releases(plan.cluster.kubernetes.version)
    wanted = {(item.part, item.version): item for item in items if isinstance(item, Binary)}
    return tuple(
        dataclasses.replace(releases, versions={**releases.versions, name: version}).part(name)
        for name, version in sorted(wanted)
    )


def list_images(plan: Plan) -> tuple[str, ...]:
    """The references of all container images that must be on machines before they have a network, sorted."""
    items = [item for role_plan in plan.role_plans for item in role_plan.items]
    return tuple(sorted({item.reference for item in items if isinstance(item, ContainerImage)}))


def make_download(part: Part) -> Download:
    """What ``imagegen.fetch`` needs to know about a part."""
    return Download(name=part.name, version=part.version, url=part.url, checksum_url=part.checksum_url or "")
