"""``imagegen render``: everything that the nodes need on first boot, as text."""

from __future__ import annotations

from pathlib import Path

import click

from imagegen.cli.options import (
    cluster_argument,
    force_option,
    format_option,
    output_option,
    profiles_option,
    secrets_option,
)
from imagegen.cli.output import Job, run_job
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb


@click.command("render", cls=Verb)
@cluster_argument()
@output_option
@secrets_option
@profiles_option
@force_option
@format_option()
@click.option(
    "--packer-compat", is_flag=True, help="Write Packer builds for Packer 1.6.6, as Debian 12 has it."
)
@click.pass_obj
def command(
    terminal: Terminal,
    cluster: Path,
    out: Path,
    secrets_dir: Path | None,
    profile_dirs: tuple[Path, ...],
    force: bool,
    form: str,
    packer_compat: bool,
) -> None:
    """Write what the nodes of CLUSTER need on first boot into OUT.

    Makes the PKI in the secret store when it is not there yet and keeps it otherwise; writes user-data,
    meta-data and network-config of every node, kubeconfigs, a Packer build for every set of roles,
    plan.json and manifest.json. Needs no root and
    no network, and starts no process.
    """
    from imagegen.backends.packer.versions import PackerStyle

    job = Job(
        cluster_file=cluster,
        out=out,
        secrets_dir=secrets_dir,
        profile_dirs=profile_dirs,
        force=force,
        with_iso=False,
        packer=PackerStyle.COMPAT if packer_compat else PackerStyle.CURRENT,
    )
    run_job(job, form, terminal)
