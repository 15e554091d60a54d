"""The appliance archive: OVF descriptor first, SHA256 manifest, streamOptimized disk.

Common ground of vSphere, Workstation and VirtualBox: family ``vmx-13``, LSI Logic SCSI, E1000, an IDE
controller without a type for the CD drive (vSphere refuses VirtualBox's PIIX4), no StorageItem or
EthernetPortItem.
Sources: DMTF DSP0243 (OVF 1.1), VMware's "OVF Tool User's Guide".
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

OVF = "http://schemas.dmtf.org/ovf/envelope/1"
RASD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
VSSD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
VMW = "http://www.vmware.com/schema/ovf"
#: both importers compare this word by word
STREAM_OPTIMIZED = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"

# CIM resource types, DSP1043
_CPU, _MEMORY, _IDE, _SCSI, _ETHERNET, _CD, _DISK = 3, 4, 5, 6, 10, 15, 17

#: what the guest may read from the OVF environment (cloud-init's OVF data source)
PROPERTIES = (
    ("instance-id", "id-ovf", "Instance id"),
    ("hostname", "", "Host name"),
    ("public-keys", "", "SSH public keys"),
    ("network-config", "", "Base64 encoded network configuration"),
    ("user-data", "", "Base64 encoded cloud-init user-data"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The virtual machine that the importer creates. ``disk_bytes`` is the disk's virtual size."""

    name: str
    description: str
    cpus: int
    memory_mib: int
    disk_bytes: int
    uefi: bool


def render_ovf(hardware: Hardware, disk_name: str, disk_file_bytes: int) -> bytes:
    """The OVF descriptor of one machine with one disk and one network."""
    for prefix, uri in (("ovf", OVF), ("rasd", RASD), ("vssd", VSSD), ("vmw", VMW)):
        ET.register_namespace(prefix, uri)
    envelope = ET.Element(f"{{{OVF}}}Envelope")
    references = ET.SubElement(envelope, f"{{{OVF}}}References")
    _add(references, "File", href=disk_name, id="file1", size=str(disk_file_bytes))
    disks = ET.SubElement(envelope, f"{{{OVF}}}DiskSection")
    _text(disks, "Info", "Virtual disks")
    _add(
        disks, "Disk", capacity=str(hardware.disk_bytes), capacityAllocationUnits="byte", diskId="vmdisk1",
        fileRef="file1", format=STREAM_OPTIMIZED,
    )  # fmt: skip
    networks = ET.SubElement(envelope, f"{{{OVF}}}NetworkSection")
    _text(networks, "Info", "Networks")
    _text(_add(networks, "Network", name="nodes"), "Description", "The network that the nodes share")
    system = _add(envelope, "VirtualSystem", id=hardware.name)
    _text(system, "Info", hardware.description)
    _text(system, "Name", hardware.name)
    # 96: "Debian 64-bit" in the CIM list of operating systems
    guest = _add(system, "OperatingSystemSection", id="96")
    guest.set(f"{{{VMW}}}osType", "debian10_64Guest")
    _text(guest, "Info", "The guest's operating system")
    _add_properties(system, hardware.name)
    _add_hardware(system, hardware)
    ET.indent(envelope)
    text: str = ET.tostring(envelope, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def _add(parent: ET.Element, tag: str, **attributes: str) -> ET.Element:
    return ET.SubElement(parent, f"{{{OVF}}}{tag}", {f"{{{OVF}}}{k}": v for k, v in attributes.items()})


def _text(parent: ET.Element, tag: str, text: str) -> None:
    ET.SubElement(parent, f"{{{OVF}}}{tag}").text = text


def _add_properties(system: ET.Element, name: str) -> None:
    product = _add(system, "ProductSection")
    _text(product, "Info", "Read by cloud-init's OVF data source")
    _text(product, "Product", name)
    for key, value, label in PROPERTIES:
        row = _add(product, "Property", key=key, type="string", userConfigurable="true", value=value)
        _text(row, "Label", label)


def _add_hardware(system: ET.Element, hardware: Hardware) -> None:
    section = _add(system, "VirtualHardwareSection")
    section.set(f"{{{OVF}}}transport", "iso com.vmware.guestInfo")
    _text(section, "Info", "Virtual hardware")
    head = ET.SubElement(section, f"{{{OVF}}}System")
    _fields(head, VSSD, ElementName="Virtual Hardware Family", InstanceID="0",
            VirtualSystemIdentifier=hardware.name, VirtualSystemType="vmx-13")  # fmt: skip
    for values in _list_devices(hardware):
        item = ET.SubElement(section, f"{{{OVF}}}Item")
        if values["ResourceType"] == str(_CD):
            item.set(f"{{{OVF}}}required", "false")
        _fields(item, RASD, **values)
    if hardware.uefi:
        config = ET.SubElement(section, f"{{{VMW}}}Config")
        config.set(f"{{{OVF}}}required", "false")
        config.set(f"{{{VMW}}}key", "firmware")
        config.set(f"{{{VMW}}}value", "efi")


def _list_devices(hardware: Hardware) -> tuple[dict[str, str], ...]:
    cpu = {"ElementName": f"{hardware.cpus} virtual CPU", "AllocationUnits": "hertz * 10^6"}
    memory = {"ElementName": f"{hardware.memory_mib} MiB of memory", "AllocationUnits": "byte * 2^20"}
    disk = {"ElementName": "Disk 1", "HostResource": "ovf:/disk/vmdisk1", "Parent": "3"}
    cdrom = {"ElementName": "CD-ROM 1", "Parent": "4", "AutomaticAllocation": "false"}
    network = {"ElementName": "Network 1", "Connection": "nodes", "AutomaticAllocation": "true"}
    rows = (
        (_CPU, {**cpu, "VirtualQuantity": str(hardware.cpus)}),
        (_MEMORY, {**memory, "VirtualQuantity": str(hardware.memory_mib)}),
        (_SCSI, {"ElementName": "SCSI controller", "Address": "0", "ResourceSubType": "lsilogic"}),
        (_IDE, {"ElementName": "IDE controller", "Address": "0"}),
        (_DISK, {**disk, "AddressOnParent": "0"}),
        (_CD, {**cdrom, "AddressOnParent": "0", "ResourceSubType": "vmware.cdrom.remotepassthrough"}),
        (_ETHERNET, {**network, "AddressOnParent": "7", "ResourceSubType": "E1000"}),
    )
    return tuple(
        {**values, "InstanceID": str(number), "ResourceType": str(kind)}
        for number, (kind, values) in enumerate(rows, start=1)
    )


def _fields(parent: ET.Element, namespace: str, **values: str) -> None:
    # The schema wants the elements of an Item in alphabetical order.
    for tag in sorted(values):
        ET.SubElement(parent, f"{{{namespace}}}{tag}").text = values[tag]


def disk_name(hardware: Hardware) -> str:
    """The name of the disk inside the archive."""
    return f"{hardware.name}-disk1.vmdk"


def write_ova(hardware: Hardware, disk: Path, target: Path, *, epoch: int) -> None:
    """Pack OVF, manifest and the streamOptimized ``disk`` into a USTAR archive, in this order.

    ``epoch`` is the members' time in seconds since 1970.
    """
    member = disk_name(hardware)
    ovf = render_ovf(hardware, member, disk.stat().st_size)
    with open(disk, "rb") as handle:
        disk_sum = hashlib.file_digest(handle, "sha256").hexdigest()
    ovf_name = f"{hardware.name}.ovf"
    manifest = (
        f"SHA256({ovf_name})= {hashlib.sha256(ovf).hexdigest()}\nSHA256({member})= {disk_sum}\n".encode()
    )
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, body in ((ovf_name, ovf), (f"{hardware.name}.mf", manifest)):
            archive.addfile(_member(name, len(body), epoch), io.BytesIO(body))
        with open(disk, "rb") as handle:
            archive.addfile(_member(member, disk.stat().st_size, epoch), handle)


def _member(name: str, size: int, epoch: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, epoch, 0o644
    info.uname = info.gname = "root"
    return info
