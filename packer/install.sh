#!/bin/sh
# Brings a machine that Packer started to the state of a golden image: packages, users, files, releases, units.
# What to do is in the tables beside this script; the plan made them, and nothing here knows what is in an image.
# Runs as root, from the folder that Packer uploaded; verifies everything before it changes anything.
set -eu
umask 022

here=${IMAGEGEN_PAYLOAD:-/var/tmp/imagegen}
root=${IMAGEGEN_ROOT:-}
tab=$(printf '\t')
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

fail() {
    echo "imagegen: $*" >&2
    exit 1
}

# check_sum FILE SHA256 WHAT
check_sum() {
    [ -f "$1" ] || fail "$3 is not there: run 'imagegen build --with packer', which puts it into downloads/"
    got=$(sha256sum <"$1")
    got=${got%% *}
    [ "${got}" = "$2" ] || fail "wrong checksum of $3: wanted $2, got ${got}; remove downloads/$2 and fetch it again"
}

# check_image ARCHIVE DIGEST REFERENCE: an OCI archive names its blobs by their sums, and its index the image
check_image() {
    [ ${#2} -eq 64 ] || fail "$3 has no digest: run 'imagegen fetch' and 'imagegen render' first"
    [ -f "$1" ] || fail "$3 is not there: run 'imagegen build --with packer', which puts it into downloads/"
    blobs=${here}/unpacked/image
    rm -rf "${blobs}"
    mkdir -p "${blobs}"
    tar -xf "$1" -C "${blobs}" --no-same-owner
    grep -q "sha256:$2" "${blobs}/index.json" || fail "$3: its archive holds another image than sha256:$2"
    for blob in "${blobs}"/blobs/sha256/*; do
        check_sum "${blob}" "${blob##*/}" "a layer of $3"
    done
    rm -rf "${blobs}"
}

# parts: SHA256 raw|tar.gz MEMBER PATH URL        images: DIGEST PATH REFERENCE
verify_downloads() {
    if [ -s "${here}/parts" ]; then
        while IFS=${tab} read -r sum _ _ _ url; do
            [ ${#sum} -eq 64 ] || fail "${url} has no checksum: run 'imagegen fetch' and 'imagegen render' first"
        done <"${here}/parts"
        cut -f 1,5 "${here}/parts" | sort -u | while IFS=${tab} read -r sum url; do
            check_sum "${here}/downloads/${sum}" "${sum}" "${url}"
        done
    fi
    [ -s "${here}/images" ] || return 0
    while IFS=${tab} read -r digest _ reference; do
        check_image "${here}/downloads/${digest}.tar" "${digest}" "${reference}"
    done <"${here}/images"
}

# has_package NAME
has_package() {
    if command -v dpkg-query >/dev/null; then
        [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
    else
        rpm --query --quiet "$1"
    fi
}

# packages: NAME. Nothing starts while they are installed.
install_packages() {
    [ -s "${here}/packages" ] || return 0
    missing=
    while read -r name; do
        has_package "${name}" || missing="${missing} ${name}"
    done <"${here}/packages"
    [ -n "${missing}" ] || return 0
    # repositories that the system leaves switched off
    [ ! -s "${here}/repositories" ] || install -m 0644 "${here}/repositories" /etc/yum.repos.d/imagegen.repo
    echo "imagegen: installing${missing}"
    # package names hold no white space
    # shellcheck disable=SC2086
    if command -v apt-get >/dev/null; then
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 0755 /usr/sbin/policy-rc.d
        # as mmdebstrap would: the options go away with the other traces of the build
        cp "${here}/dpkg-options" /etc/dpkg/dpkg.cfg.d/99imagegen
        apt-get -qq -o Acquire::Languages=none -o Acquire::Retries=5 update
        apt-get -qq --yes --no-install-recommends -o Dpkg::Options::=--force-confold install ${missing} </dev/null
        rm -f /usr/sbin/policy-rc.d /etc/dpkg/dpkg.cfg.d/99imagegen
    elif command -v dnf >/dev/null; then
        dnf --quiet --assumeyes --setopt=install_weak_deps=False install ${missing}
    else
        yum --quiet --assumeyes install ${missing}
    fi
}

# sysusers.conf: with fixed ids. Oracle Linux 7 has no systemd-sysusers: g NAME ID, u NAME ID:GROUP "GECOS" HOME SHELL,
# m NAME GROUP
add_users() {
    [ -s "${here}/sysusers.conf" ] || return 0
    if command -v systemd-sysusers >/dev/null; then
        systemd-sysusers "${here}/sysusers.conf"
        return
    fi
    while read -r kind name rest; do
        case ${kind} in
        g) getent group "${name}" >/dev/null || groupadd --system --gid "${rest}" "${name}" ;;
        u)
            ids=${rest%% *}
            comment=${rest#*\"}
            places=${comment#*\" }
            getent passwd "${name}" >/dev/null || useradd --system --uid "${ids%%:*}" --gid "${ids#*:}" \
                --comment "${comment%%\"*}" --home-dir "${places%% *}" --no-create-home --shell "${places#* }" "${name}"
            ;;
        m) usermod --append --groups "${rest}" "${name}" ;;
        *) fail "sysusers.conf: ${kind}" ;;
        esac
    done <"${here}/sysusers.conf"
}

# put FILE MODE OWNER GROUP PATH: an existing link is replaced, not followed
put() {
    mkdir -p "${root}${5%/*}"
    rm -f "${root}$5"
    install -m "$2" -o "$3" -g "$4" "$1" "${root}$5"
}

# entries: directory|file|link MODE OWNER GROUP PATH [TARGET], parents first
put_entries() {
    [ -s "${here}/entries" ] || return 0
    while IFS=${tab} read -r kind mode owner group path target; do
        case ${kind} in
        directory) install -d -m "${mode}" -o "${owner}" -g "${group}" "${root}${path}" ;;
        file) put "${here}/tree${path}" "${mode}" "${owner}" "${group}" "${path}" ;;
        link)
            mkdir -p "${root}${path%/*}"
            rm -f "${root}${path}"
            ln -s "${target}" "${root}${path}"
            ;;
        *) fail "entries: ${kind}" ;;
        esac
    done <"${here}/entries"
}

put_downloads() {
    work=${here}/unpacked
    if [ -s "${here}/parts" ]; then
        while IFS=${tab} read -r sum kind member path _; do
            if [ "${kind}" = raw ]; then
                put "${here}/downloads/${sum}" 0755 root root "${path}"
                continue
            fi
            if [ ! -d "${work}/${sum}" ]; then
                mkdir -p "${work}/${sum}"
                tar -xzf "${here}/downloads/${sum}" -C "${work}/${sum}" --no-same-owner
            fi
            put "${work}/${sum}/${member}" 0755 root root "${path}"
        done <"${here}/parts"
    fi
    [ -s "${here}/images" ] || return 0
    while IFS=${tab} read -r digest path _; do
        put "${here}/downloads/${digest}.tar" 0644 root root "${path}"
    done <"${here}/images"
}

# units: ACTION UNIT. Nothing is started or loaded again: the machine is switched off next.
set_units() {
    [ -s "${here}/units" ] || return 0
    while read -r action unit; do
        systemctl --quiet --no-reload "${action}" "${unit}" </dev/null || fail "cannot ${action} ${unit}"
    done <"${here}/units"
}

verify_downloads
if [ -z "${root}" ]; then
    install_packages
    add_users
fi
put_entries
put_downloads
[ -n "${root}" ] || set_units
echo "imagegen: installed"
