#!/bin/sh
# Makes the SSH key of one build and the seeds that trust it. The key is worthless after the build: the account that it
# opens is removed from the image.
# usage: new-key.sh [FOLDER]    by default the folder work beside this script, which is what the HCL expects
set -eu
umask 077

here=$(dirname "$0")
work=${1:-${here}/work}

rm -rf "${work}/cidata" "${work}/installer" "${work}/id_ed25519" "${work}/id_ed25519.pub"
mkdir -p "${work}"
ssh-keygen -q -t ed25519 -N '' -C 'throw-away key of one build' -f "${work}/id_ed25519"
key=$(cat "${work}/id_ed25519.pub")
for folder in cidata installer; do
    mkdir "${work}/${folder}"
    for file in "${here}/seeds/${folder}"/*; do
        # a public key holds no character that sed would read as something else, but for the slash
        sed "s|@SSH_PUBLIC_KEY@|${key}|" "${file}" >"${work}/${folder}/${file##*/}"
    done
done
