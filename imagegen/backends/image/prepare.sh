#!/bin/sh
# Says what goes into the initial RAM disk, before the kernel's package makes it, and lets Python's compiler work beside
# the packages that come next.
# Called by mmdebstrap as an essential hook: $1 is the root of the machine to be.
set -eu
umask 022

root=$1
folder=$root/etc/initramfs-tools
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

# Stands in for a program until customize.sh takes it away, once all packages are installed: its body comes on stdin, the
# program itself has .real behind its name.
stand_in_for() {
    chroot "$root" dpkg-divert --quiet --local --rename --divert "$1.real" --add "$1"
    cat >"$root$1"
    chmod 0755 "$root$1"
}

# Some thirty packages wait for py3compile, one after another, while a processor has nothing to do. The shared locks tell
# customize.sh that some are still at work.
stand_in_for /usr/bin/py3compile <<'END'
#!/bin/sh
exec 9>>/usr/bin/py3compile.lock </dev/null >/dev/null 2>&1
flock --shared 9
setsid sh -c 'py3compile.real "$@" || echo "py3compile $*" >&9' sh "$@" &
END

# The kernel's package creates an initial RAM disk, and a trigger makes it again in the end, with what all hooks put in.
# The trigger wants to find one that is older.
stand_in_for /usr/sbin/update-initramfs <<'END'
#!/bin/sh
[ "${1-} ${2-}" = "-c -k" ] || exec update-initramfs.real "$@"
touch --date=@0 "/boot/initrd.img-$3"
END
