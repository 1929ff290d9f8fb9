#!/bin/sh
# Installs what is in this directory below PREFIX (/usr/local). As root, without
# DESTDIR, it makes the user clouddragon too. An existing configuration stays.
set -eu
cd "$(dirname "$0")"
umask 022
prefix=${PREFIX:-/usr/local} to=${DESTDIR:-}
units=${UNITDIR:-$prefix/lib/systemd/system}

# put MODE FILE TO: copies and renames, so that a kill leaves the old file or the new one.
put() {
	install -D -m "$1" "$2" "$to$3.new"
	sync "$to$3.new"
	mv "$to$3.new" "$to$3"
}

put 755 clouddragon "$prefix/bin/clouddragon"
put 644 clouddragon.sysusers "$prefix/lib/sysusers.d/clouddragon.conf"
made=$(mktemp)
trap 'rm -f "$made"' EXIT
for unit in *.service *.timer; do
	sed "s|/usr/local|$prefix|" "$unit" >"$made"
	put 644 "$made" "$units/$unit"
done
for page in man/*.[1-9]; do
	put 644 "$page" "$prefix/share/man/man${page##*.}/${page##*/}"
done
put 644 clouddragon.bash "$prefix/share/bash-completion/completions/clouddragon"
doc=$prefix/share/doc/clouddragon
install -D -m 644 -t "$to$doc" README.md CHANGELOG.md LICENSE
install -D -m 644 -t "$to$doc/docs" docs/*.md docs/haproxy.cfg docs/shards.map
rm -rf "$to$doc/licences"
cp -R licences "$to$doc"
[ -n "$to" ] || systemd-sysusers "$prefix/lib/sysusers.d/clouddragon.conf"
if ! [ -e "$to/etc/clouddragon/config.yml" ]; then
	put 640 config.yml /etc/clouddragon/config.yml
	[ -n "$to" ] || chgrp clouddragon /etc/clouddragon/config.yml
fi
