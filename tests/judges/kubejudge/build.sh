#!/bin/sh
# Builds the judge of one Kubernetes version out of its Go module and prints what its programs know.
# Usage: build.sh VERSION FOLDER, for example build.sh 1.36.4 ~/.cache/imagegen/judges/kubejudge
# Leaves FOLDER/judge-VERSION and FOLDER/dump-VERSION.json; needs go, some minutes and 2 GiB.
set -eu
version=$1 folder=$2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

source=$(cd "$work" && go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
cp -r "$source" "$work/kubernetes"
chmod -R u+w "$work/kubernetes"
cd "$work/kubernetes"
rm -rf vendor go.work go.work.sum
# a module leaves its staging folders out; they are modules of their own
sed -i -E "s#^(\s*)(k8s.io/[a-z0-9-]+) => ./staging/src/.*#\1\2 => \2 v0.${version#1.}#" go.mod
mkdir -p cmd/judge "$folder"
cp "$here/main.go" cmd/judge/
minor=${version#1.} minor=${minor%%.*} fit=
for file in "$here"/fit_1_*.go; do
    since=${file##*_} since=${since%.go}
    if [ "$since" -le "$minor" ]; then fit=$file; fi
done
cp "$fit" cmd/judge/fit.go
export GOFLAGS=-mod=mod GOWORK=off
nice go build -p 1 -gcflags='all=-N -l' -ldflags='-s -w' -o "$folder/judge-$version" ./cmd/judge
"$folder/judge-$version" dump >"$folder/dump-$version.json"
