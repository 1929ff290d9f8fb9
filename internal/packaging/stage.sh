#!/bin/sh
# stage.sh ARCH DIR: build clouddragon for linux/ARCH, and put it into DIR with everything that is
# installed with it. DIR/install.sh installs it. The same commit makes the same bytes.
set -eu
cd "$(dirname "$0")/../.."
arch=$1 dir=$2
export CGO_ENABLED=0 GOOS=linux GOFLAGS=-mod=readonly LC_ALL=C
umask 022

rm -rf "$dir"
mkdir -p "$dir/man" "$dir/docs" "$dir/licences"
build() { go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o "$2" "$1"; }
GOARCH=$arch build ./cmd/clouddragon "$dir/clouddragon"

# The manual pages are made from the program's help, so build one that runs here.
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
GOARCH=$(go env GOHOSTARCH) build ./cmd/clouddragon "$tools/clouddragon"
go run ./internal/packaging/man -binary "$tools/clouddragon" \
	-date "$(date -u -d "@$SOURCE_DATE_EPOCH" +%F)" -out "$dir/man"

cp cmd/clouddragon/*.service cmd/clouddragon/*.timer cmd/clouddragon/*.sysusers "$dir"
cp config.yml README.md CHANGELOG.md LICENSE internal/packaging/clouddragon.bash internal/packaging/install.sh "$dir"
cp docs/*.md docs/haproxy.cfg docs/shards.map "$dir/docs"

# Licences of the linked modules: each file that may be one, from the
# directory of each package up to the module's own.
# shellcheck disable=SC2016
modules=$(GOARCH=$arch go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}}@{{.Version}} {{.Dir}} {{$.Dir}}{{end}}{{end}}' ./cmd/clouddragon)
echo "$modules" | while read -r module top package; do
	to=$dir/licences/$module
	mkdir -p "$to"
	while :; do
		find "$package" -maxdepth 1 -type f | grep -iE '/(licen[sc]e|copying|notice|patents)[^/]*$' | grep -v '\.go$' |
			while read -r file; do
				install -D -m 644 "$file" "$to/${file#"$top"/}"
			done
		[ "$package" != "$top" ] || break
		package=${package%/*}
	done
	find "$to" -maxdepth 1 | grep -qiE '/(licen[sc]e|copying)[^/]*$' || { echo "no licence in $module" >&2; exit 1; }
done
go=$dir/licences/go@$(go env GOVERSION)
mkdir -p "$go"
cp "$(go env GOROOT)"/LICENSE "$go"
[ ! -e "$(go env GOROOT)/PATENTS" ] || cp "$(go env GOROOT)"/PATENTS "$go"

find "$dir" -type d -exec chmod 755 {} +
find "$dir" -type f -exec chmod 644 {} +
chmod 755 "$dir/clouddragon" "$dir/install.sh"
