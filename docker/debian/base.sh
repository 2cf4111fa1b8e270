#!/bin/sh
# base.sh SUITE IMAGE...: builds a slim Debian base image from this machine's package mirror, and tags it with every IMAGE.
# For machines that cannot pull debian:*-slim. It needs mmdebstrap (a small Debian package), docker and root.
# DEBIAN_SNAPSHOT=20261130T000000Z builds from https://snapshot.debian.org at that time, so that later builds have the same
# packages. Without it, the versions are those of the mirror.
set -eu
suite=$1; shift; first=$1
# --no-release-info: also lists sources that were never fetched, as before the first `apt-get update`
mirrors=$(apt-get indextargets --no-release-info --format '$(REPO_URI)' 'Created-By: Packages' | sort -u)
mirror=${MIRROR:-$(echo "$mirrors" | grep -v security | grep -m1 '/debian/*$')}
security=${SECURITY:-$(echo "$mirrors" | grep -m1 security || true)}
# apt refuses an index that is older than its week, unless this host's apt accepts it (a mirror that is not updated).
# An index of a snapshot is always older.
expired=$(apt-config dump --format '%f=%v%n' Acquire::Check-Valid-Until | grep -qix 'Acquire::Check-Valid-Until=\(false\|no\|0\)' && echo accepted || true)
if [ -n "${DEBIAN_SNAPSHOT:-}" ]; then
  mirror=https://snapshot.debian.org/archive/debian/$DEBIAN_SNAPSHOT
  security=https://snapshot.debian.org/archive/debian-security/$DEBIAN_SNAPSHOT
  expired=accepted
fi
valid=${expired:+'Acquire::Check-Valid-Until "false"'}
case $suite in
  sid) lines="deb $mirror $suite main" ;;
  *) lines="deb $mirror $suite main
deb $mirror $suite-updates main${security:+
deb $security $suite-security main}" ;;
esac
hooks=$(dirname "$(command -v mmdebstrap)")/../share/mmdebstrap/hooks
# A file instead of a pipe into `docker import`: sh would ignore a failure of the left side and import an empty image.
tar=$(mktemp -p "${TMPDIR:-/tmp}" base-XXXXXX.tar); trap 'rm -f "$tar"' EXIT; trap 'exit 1' INT TERM
mmdebstrap --quiet --variant=minbase --mode=root --architectures="$(dpkg --print-architecture)" \
  --hook-dir="$hooks/merged-usr" --include=usr-is-merged \
  --aptopt='Apt::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' ${valid:+--aptopt="$valid"} \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --customize-hook='printf "#!/bin/sh\nexit 101\n" >"$1/usr/sbin/policy-rc.d"; chmod 755 "$1/usr/sbin/policy-rc.d"' \
  --customize-hook='printf "%s\n" "Acquire::Languages \"none\";" "Acquire::GzipIndexes \"true\";" "Apt::AutoRemove::SuggestsImportant \"false\";" >"$1/etc/apt/apt.conf.d/99slim"' \
  --customize-hook="echo '${valid:+$valid;}' >>\"\$1/etc/apt/apt.conf.d/99slim\"" \
  --customize-hook='rm -rf "$1"/var/cache/apt/*.bin "$1"/var/lib/apt/lists/* "$1"/var/log/*.log "$1"/var/log/apt/* "$1"/var/cache/ldconfig/aux-cache; : >"$1"/etc/resolv.conf; rm -f "$1"/etc/hostname' \
  "$suite" "$tar" "$lines"
docker import -c 'CMD ["bash"]' -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$tar" "$first" >/dev/null
for image in "$@"; do [ "$image" = "$first" ] || docker tag "$first" "$image"; done
