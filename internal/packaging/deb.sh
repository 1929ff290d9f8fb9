#!/bin/sh
# deb.sh ARCH...: Debian packages, of what dist.sh has built. The same commit makes the
# same bytes.
set -eu
cd "$(dirname "$0")/../.."
out=${OUT:-bin/dist}
version=$(printf %s "$VERSION" | sed 's/^v//; s/-/+/g')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022

# readable FILE: the format versions of a file that this version reads, as docs/formats.md has them.
readable() {
	sed -n "s,^| \`$1\` |[^|]*| \([0-9 ]*\) |.*,\1,p" docs/formats.md | grep .
}
checkpoint=$(readable CHECKPOINT) slots=$(readable slots-N) segment=$(readable log/N.seg)

# copyright DIR: the licences of all linked modules. Debian has the Apache licence in its own file.
copyright() {
	echo "Cloud Dragon"
	echo
	cat LICENSE
	echo
	echo "The program is linked with the following, of which each has a licence of its own."
	(cd "$1" && find . -type f | LC_ALL=C sort) | while read -r file; do
		printf '\n---- %s\n\n' "${file#./}"
		if grep -q 'Apache License' "$1/$file" && grep -q 'Version 2.0' "$1/$file"; then
			echo "Apache License, version 2.0: see /usr/share/common-licenses/Apache-2.0"
		else
			cat "$1/$file"
		fi
	done
}

for arch; do
	tree=$work/$arch/clouddragon-$version
	mkdir -p "$tree" "$out"
	cp -R "bin/stage/clouddragon-$VERSION-linux-$arch" "$tree/stage"
	cp -R internal/packaging/debian "$tree/debian"
	sed -i "s/@CHECKPOINT@/$checkpoint/; s/@SLOTS@/$slots/; s/@SEGMENT@/$segment/" "$tree/debian/clouddragon.preinst"
	copyright "$tree/stage/licences" >"$tree/debian/copyright"
	cat >"$tree/debian/changelog" <<-END
		clouddragon ($version) unstable; urgency=medium

		  * What changed is in /usr/share/doc/clouddragon/CHANGELOG.md.gz.

		 -- $(sed -n 's/^Maintainer: //p' internal/packaging/debian/control)  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
	END
	(cd "$tree" && DEB_BUILD_OPTIONS=nocheck dpkg-buildpackage --host-arch "$arch" --build=binary --no-sign --no-check-builddeps >"$work/log" 2>&1) || {
		cat "$work/log" >&2
		exit 1
	}
	cp "$work/$arch"/*.deb "$out"
done
(cd "$out" && sha256sum -- *.deb *.tar.gz >SHA256SUMS && cat SHA256SUMS)
