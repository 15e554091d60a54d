#!/bin/sh
# Turns a base system into the root file system of one role, and that into file system images.
# Called by mmdebstrap as a customize hook: $1 is the root of the machine to be, WORK a folder that imagegen prepared,
# OUT the one for what is made.
# Every step reads what to do from WORK and does nothing when its table is not there.
# With "tidy" as second argument: only the clean-up, for what later steps build upon.
# With "pack", in a mount namespace of its own: only the file system images.
set -eu
umask 022

root=$1
work=${WORK:?}
out=${OUT-}
: "${SOURCE_DATE_EPOCH:?}"

in_root() {
    chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"
}

# users and groups, with fixed ids
add_users() {
    [ -s "$work/sysusers.conf" ] || return 0
    in_root systemd-sysusers - <"$work/sysusers.conf"
}

# files, directories, links; owners by name, which only the root itself can resolve
unpack_payload() {
    [ -s "$work/payload.tar" ] || return 0
    in_root tar --extract --preserve-permissions --directory / --file - <"$work/payload.tar"
}

# units: ACTION UNIT, sorted; one call an action, because each takes as long for one unit as for twenty
set_units() {
    [ -s "$work/units" ] || return 0
    cut -d ' ' -f 1 "$work/units" | uniq | while read -r action; do
        # names of units hold no blanks
        # shellcheck disable=SC2046
        in_root systemctl --quiet "$action" $(sed -n "s/^$action //p" "$work/units") </dev/null
    done
}

# our own Python modules, which a machine would compile whenever a program starts; packages have compiled theirs
compile_python() {
    [ -d "$root/usr/local/lib/imagegen" ] && [ -x "$root/usr/bin/python3" ] || return 0
    in_root PYTHONHASHSEED=0 python3 -m compileall -q --invalidation-mode timestamp /usr/local/lib/imagegen
}

# /usr has not changed since systemd last looked: nothing of what it would make on first boot is out of date, because
# the packages have made it (systemd-update-done.service(8))
mark_updated() {
    for marker in etc/.updated var/.updated; do
        printf 'TIMESTAMP_NSEC=%s000000000\n' "$SOURCE_DATE_EPOCH" >"$root/$marker"
        touch --date="@$SOURCE_DATE_EPOCH" "$root/$marker"
    done
}

# mmdebstrap keeps services from starting while packages are installed, and undoes it only after this hook
allow_services() {
    rm -f "$root/usr/sbin/policy-rc.d"
    if [ -e "$root/sbin/start-stop-daemon.REAL" ]; then
        mv "$root/sbin/start-stop-daemon.REAL" "$root/sbin/start-stop-daemon"
    fi
}

# hygiene: what must not be the same on two machines, and what nobody needs; a pattern may match nothing
clean_up() {
    # no login by password: locked is what remains when nobody sets one; passwd leaves a backup and a lock behind
    in_root passwd --quiet --lock root
    while read -r action patterns; do
        case $action in
        remove) (cd "$root" && eval "rm -rf -- $patterns") ;;
        empty) (cd "$root" && eval "truncate --no-create --size=0 -- $patterns") ;;
        create) : >"$root/$patterns" ;;
        esac
    done <"$work/hygiene"
}

# prepare.sh has put py3compile beside the installation of packages
await_compiler() {
    lock=$root/usr/bin/py3compile.lock
    [ -e "$lock" ] || return 0
    flock "$lock" true
    if [ -s "$lock" ]; then
        sed 's/^/failed: /' "$lock" >&2
        return 1
    fi
    rm "$lock"
}

remove_stand_ins() {
    [ -e "$work/prepare.sh" ] || return 0
    for program in /usr/bin/py3compile /usr/sbin/update-initramfs; do
        rm "$root$program"
        in_root dpkg-divert --quiet --local --rename --remove "$program"
    done
    for initrd in "$root"/boot/initrd.img-*; do
        [ ! -e "$initrd" ] || [ -s "$initrd" ] || in_root update-initramfs -c -k "${initrd##*/initrd.img-}"
    done
}

# what a later step needs to install more packages from the same state of the archive
save_lists() {
    [ -e "$work/save-lists" ] || return 0
    tar --create --directory "$root" --file "$out/lists.tar" --exclude=partial --exclude=lock var/lib/apt/lists
    chmod 0644 "$out/lists.tar"
}

# evidence for the bill of materials
save_status() {
    cp "$root/var/lib/dpkg/status" "$out/dpkg-status"
    chmod 0644 "$out/dpkg-status"
}

save_copyrights() {
    in_root sh -c 'cd / && exec tar --create --dereference --ignore-failed-read usr/share/doc/*/copyright' \
        >"$out/copyrights.tar"
    chmod 0644 "$out/copyrights.tar"
}

save_kernel() {
    cp -L "$root/vmlinuz" "$out/vmlinuz"
    cp -L "$root/initrd.img" "$out/initrd.img"
    chmod 0644 "$out/vmlinuz" "$out/initrd.img"
}

# Nothing is younger than the source; what is older keeps its time.
clamp_times() {
    find "$1" -xdev -newermt "@$SOURCE_DATE_EPOCH" -print0 |
        xargs -0r touch --no-dereference --date="@$SOURCE_DATE_EPOCH"
}

# The root file system goes where its partition will be: DISK-BYTES START-BYTES SIZE-KIB UUID.
# Populating from a folder is only independent of the folder's own order from mke2fs 1.47.1 on, so the machine's own
# mke2fs is preferred to the host's; it runs outside of the root because it must write there.
make_ext4() {
    while read -r disk start kib uuid; do
        truncate -s "$disk" "$out/disk.raw"
        run_mke2fs -q -t ext4 -m 1 -L root -U "$uuid" -E "hash_seed=$uuid,offset=$start" -d "$1" "$out/disk.raw" "${kib}k"
        chmod 0644 "$out/disk.raw"
    done <"$work/ext4"
}

run_mke2fs() {
    loader=$root/lib64/ld-linux-x86-64.so.2
    if [ -x "$root/usr/sbin/mke2fs" ] && [ -x "$loader" ]; then
        E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH MKE2FS_CONFIG=$root/etc/mke2fs.conf \
            "$loader" --library-path "$root/usr/lib/x86_64-linux-gnu" "$root/usr/sbin/mke2fs" "$@"
    else
        E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH mke2fs "$@"
    fi
}

# The root of a bootable ISO, which has its kernel beside it and no disk to name in fstab. What is sparse depends on what
# it is built on, memory or a disk.
make_squashfs() {
    [ -e "$work/squashfs" ] || return 0
    mksquashfs "$1" "$out/root.squashfs" -noappend -no-sparse -no-progress -quiet -comp zstd -Xcompression-level 5 \
        -wildcards -e etc/fstab 'boot/*' vmlinuz initrd.img >/dev/null
    chmod 0644 "$out/root.squashfs"
}

# mmdebstrap has mounted /proc, /sys and /dev into the root; a bind mount shows what lies below them. Whether there are
# device nodes depends on who builds; the kernel brings its own, so every image has an empty /dev.
pack() {
    mkdir -p "$root/dev"
    mount --bind "$root" "$work/view"
    mount -t tmpfs -o mode=0755,size=1m tmpfs "$work/view/dev"
    touch --date="@$SOURCE_DATE_EPOCH" "$work/view/dev"
    clamp_times "$work/view"
    make_ext4 "$work/view"
    make_squashfs "$work/view"
}

case ${2:-} in
tidy)
    await_compiler
    remove_stand_ins
    save_lists
    save_status
    clean_up
    exit
    ;;
pack)
    pack
    exit
    ;;
esac
: "${out:?}"
add_users
unpack_payload
compile_python
set_units
save_status
save_copyrights
allow_services
clean_up
mark_updated
save_kernel
unshare --mount --propagation private sh "$0" "$root" pack
