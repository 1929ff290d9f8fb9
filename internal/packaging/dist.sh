#!/bin/sh
# dist.sh ARCH...: tarballs for linux, and SHA256SUMS of all that is in bin/dist.
# The same commit makes the same bytes.
set -eu
cd "$(dirname "$0")/../.."
out=${OUT:-bin/dist}
mkdir -p "$out"
for arch; do
	name=clouddragon-$VERSION-linux-$arch
	internal/packaging/stage.sh "$arch" "bin/stage/$name"
	tar --create --directory bin/stage --sort=name --format=gnu --owner=0 --group=0 --numeric-owner \
		--mtime="@$SOURCE_DATE_EPOCH" "$name" | gzip -n -9 >"$out/$name.tar.gz"
done
(cd "$out" && sha256sum -- *.tar.gz >SHA256SUMS && cat SHA256SUMS)
