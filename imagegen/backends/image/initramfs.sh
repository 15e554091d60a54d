#!/bin/sh
# Says what goes into the initial RAM disk, before the kernel's package makes it.
# Called by mmdebstrap as an essential hook: $1 is the root of the machine to be.
set -eu
umask 022

folder=$1/etc/initramfs-tools
mkdir -p "$folder/conf.d" "$folder/hooks"

cat >"$folder/conf.d/imagegen" <<'END'
# nodes have no swap and never hibernate
RESUME=none
# The cloud kernel runs in virtual machines only, whose disks hooks/imagegen knows. A start from read-only media
# (live-boot) finds its medium on more.
for kernel in /boot/vmlinuz-*-cloud-*; do
    if [ -e "$kernel" ] && [ ! -e /usr/share/initramfs-tools/hooks/live ]; then
        MODULES=list
    fi
done
END

cat >"$folder/hooks/imagegen" <<'END'
#!/bin/sh
# The drivers of virtual disks; the bootloader reads every byte of this, and slowly.
set -eu
if [ "${1:-}" = prereqs ]; then
    echo udev
    exit 0
fi
. /usr/share/initramfs-tools/hook-functions
# names and quirks of hardware, for which nobody asks before the root file system is there
rm -f "$DESTDIR/usr/lib/udev/hwdb.bin"
if [ "$MODULES" = list ]; then
    manual_add_modules virtio_pci virtio_blk virtio_scsi nvme ahci ata_piix sd_mod hv_storvsc xen_blkfront ext4
fi
END
chmod 0755 "$folder/hooks/imagegen"
