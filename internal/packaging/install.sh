#!/bin/sh
# Installs what is in this directory below PREFIX (/usr/local). As root, without
# DESTDIR, it makes the user clouddragon too. A configuration that is there stays.
set -eu
cd "$(dirname "$0")"
umask 022
prefix=${PREFIX:-/usr/local} to=${DESTDIR:-}
units=${UNITDIR:-$prefix/lib/systemd/system}

install -D -m 755 clouddragon "$to$prefix/bin/clouddragon"
install -D -m 644 clouddragon.sysusers "$to$prefix/lib/sysusers.d/clouddragon.conf"
install -d "$to$units"
for unit in *.service *.timer; do
	sed "s|/usr/local|$prefix|" "$unit" >"$to$units/$unit.new"
	mv "$to$units/$unit.new" "$to$units/$unit"
done
install -D -m 644 -t "$to$prefix/share/man/man1" man/*.1
install -D -m 644 -t "$to$prefix/share/man/man5" man/*.5
install -D -m 644 clouddragon.bash "$to$prefix/share/bash-completion/completions/clouddragon"
install -D -m 644 -t "$to$prefix/share/doc/clouddragon" README.md CHANGELOG.md LICENSE
install -D -m 644 -t "$to$prefix/share/doc/clouddragon/docs" docs/*.md
cp -R licences "$to$prefix/share/doc/clouddragon"
[ -n "$to" ] || systemd-sysusers "$prefix/lib/sysusers.d/clouddragon.conf"
if ! [ -e "$to/etc/clouddragon/config.yml" ]; then
	install -D -m 640 config.yml "$to/etc/clouddragon/config.yml"
	[ -n "$to" ] || chgrp clouddragon /etc/clouddragon/config.yml
fi
