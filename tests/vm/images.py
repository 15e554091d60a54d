"""Boots one image as a platform would show it, and lets the guest itself report how it went.

The report comes from a unit that QEMU hands to systemd in the firmware's tables
(systemd.system-credentials(7), ``systemd.extra-unit.*``): neither the image nor its seed is touched for it.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, replace
from typing import Any

from imagegen.lab.console import clean_text, wait_for_console
from imagegen.lab.credentials import encode_dropin, encode_unit
from imagegen.lab.machine import Machine, MachineSpec, start_machine
from imagegen.lab.network import LabNetwork

#: seconds; a base image needs 35 to 60 in emulation on two idle cores
PATIENCE = 600.0

_REPORT, _END = "imagegen-report:", "imagegen-reported"
#: Waits until systemd has nothing left to start, then says in one line of JSON what came of it.
_SCRIPT = """\
set -u
# not --wait, which may miss the end of the start and then waits for ever
until systemctl is-system-running >/run/report-state || grep -q degraded /run/report-state; do sleep 1; done
python3 - <<'END' >/dev/ttyS0
import json, subprocess
run = lambda *argv: subprocess.run(argv, capture_output=True, text=True).stdout.strip()
result = json.load(open("/run/cloud-init/result.json"))["v1"]
status = json.load(open("/run/cloud-init/status.json"))["v1"]
print("\\n@MARK@" + json.dumps({
    "state": open("/run/report-state").read().strip(),
    "failed": run("systemctl", "list-units", "--failed", "--plain", "--no-legend").splitlines(),
    "source": str(result["datasource"]),
    "errors": result["errors"],
    "recoverable": {stage: status[stage].get("recoverable_errors") or {} for stage in status if "-" in stage},
    "hostname": run("hostname"),
    "addresses": run("ip", "-4", "-o", "addr", "show", "scope", "global"),
    "root": run("findmnt", "-n", "-b", "-o", "FSTYPE,SIZE", "/"),
    "accounts": [row.split(":")[0] for row in open("/etc/passwd") if 1000 <= int(row.split(":")[2]) < 60000],
    "seed": run("sh", "-c", "stat -c '%a %U %n' /var/lib/cloud/seed/nocloud/* /run/live/medium/seed/*"),
    "cmdline": open("/proc/cmdline").read().strip(),
}) + "\\n@END@")
END
""".replace("@MARK@", _REPORT).replace("@END@", _END)
_UNIT = """\
[Unit]
Description=Report to the test
DefaultDependencies=no
After=sysinit.target
[Service]
Type=exec
ExecStart=/bin/sh -c "echo %s | base64 -d | sh"
"""


def list_report_credentials(script: str = _SCRIPT) -> tuple[str, ...]:
    """Values of -smbios that make the guest run the script early on, beside everything else."""
    unit = _UNIT % base64.b64encode(script.encode()).decode()
    wants = "[Unit]\nWants=imagegen-report.service\n"
    return (
        encode_unit("imagegen-report.service", unit),
        encode_dropin("sysinit.target", "report", wants),
    )


@dataclass(frozen=True, kw_only=True)
class Boot:
    """What a guest said about itself, its console so far, its machine's processor time in seconds."""

    report: dict[str, Any]
    console: str
    cpu_seconds: float


def boot_image(spec: MachineSpec, network: LabNetwork | None = None) -> Boot:
    """Start the machine and wait for its report; raises BootFailureError with the console's last lines.

    Nothing runs afterwards.
    """
    spec = replace(spec, smbios=(*spec.smbios, *list_report_credentials()))
    machine = start_machine(spec, network)
    try:
        text = clean_text(wait_for_console(spec.serial, _END, PATIENCE, machine))
        return Boot(report=_find_report(text), console=text, cpu_seconds=machine.cpu_seconds())
    finally:
        _end(machine)


def _end(machine: Machine) -> None:
    if machine.is_alive():
        machine.kill()


def _find_report(text: str) -> dict[str, Any]:
    match = re.search(re.escape(_REPORT) + r"(\{.*\})", text)
    assert match is not None, text[-2000:]
    report: dict[str, Any] = json.loads(match[1])
    return report


def check_report(boot: Boot, *, hostname: str, source: str) -> None:
    """cloud-init finished with what this source gave it, and no unit failed."""
    report = boot.report
    assert report["failed"] == [], boot.console[-3000:]
    assert report["state"] == "running", report
    assert report["errors"] == [], report
    assert report["source"].startswith(source), report
    assert report["hostname"] == hostname, report
    assert "ops" in report["accounts"], report
