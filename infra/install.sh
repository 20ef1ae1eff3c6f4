#!/bin/sh
# Installs `drover` from a release, after verifying its checksum.
#
#   RELEASE               tag of the release, for example v0.1.0
#   DROVER_REPOSITORY     OWNER/NAME of the repository whose release it is
#   DROVER_INSTALL_DIR    folder for the executable; default ~/.local/bin
#   RELEASE_URL           address of a mirror that has a folder for each release; default GitHub
#
# The copy of this script in a release has that release and its repository as defaults. If gh is logged in, it also verifies
# the attestation that the repository's release workflow built the archive.
set -eu

# infra/release fills these in.
default_release=""
default_repository=""

release="${RELEASE:-$default_release}"
repository="${DROVER_REPOSITORY:-$default_repository}"
if [ -z "$repository" ]; then
	# In a checkout: the repository of `origin`.
	repository="$(git -C "$(dirname "$0")" remote get-url origin 2>/dev/null |
		sed -n 's#^.*github\.com[:/]\([^/]*/[^/]*\)$#\1#p' | sed 's/\.git$//')"
fi
folder="${DROVER_INSTALL_DIR:-$HOME/.local/bin}"

fail() {
	echo "install.sh: $1" >&2
	exit 1
}

[ -n "$release" ] || fail "set RELEASE to the tag of a release, for example v0.1.0"
[ -n "${RELEASE_URL:-}$repository" ] || fail "set DROVER_REPOSITORY to OWNER/NAME of the repository that has the release"

case "$(uname -m)" in
x86_64 | amd64) machine=x86_64 ;;
aarch64 | arm64) machine=aarch64 ;;
*) fail "there is no drover for $(uname -m); build it with cargo" ;;
esac
case "$(uname -s)" in
Linux) platform=unknown-linux-gnu ;;
Darwin) platform=apple-darwin ;;
*) fail "there is no drover for $(uname -s); build it with cargo" ;;
esac
archive="drover-$machine-$platform.tar.gz"

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

download() {
	url="${RELEASE_URL:-https://github.com/$repository/releases/download}/$release/$1"
	case "$url" in
	http://127.0.0.1[:/]*) protocol='=http' ;; # a mirror on this machine
	*) protocol='=https' ;;
	esac
	curl --fail --silent --show-error --location --proto "$protocol" --output "$work/$1" "$url" || fail "cannot download $url"
}
download SHA256SUMS
download "$archive"

expected="$(awk -v file="$archive" '$2 == file { print $1 }' "$work/SHA256SUMS")"
if command -v sha256sum >/dev/null; then
	actual="$(sha256sum "$work/$archive")"
else
	actual="$(shasum -a 256 "$work/$archive")"
fi
if [ -z "$expected" ] || [ "${actual%% *}" != "$expected" ]; then
	fail "$archive does not have the checksum of SHA256SUMS; nothing is installed"
fi
if [ -n "$repository" ] && command -v gh >/dev/null && gh auth status >/dev/null 2>&1; then
	gh attestation verify "$work/$archive" --repo "$repository" --source-ref "refs/tags/$release" >&2 ||
		fail "$archive was not built by the release workflow of $repository; nothing is installed"
fi

tar -xzf "$work/$archive" -C "$work" drover
"$work/drover" --version >/dev/null || fail "drover does not start on this machine; build it with cargo. Nothing is installed"
mkdir -p "$folder"
mv "$work/drover" "$folder/drover"
echo "installed $folder/drover: $("$folder/drover" --version)"
case ":$PATH:" in
*":$folder:"*) ;;
*) echo "$folder is not in PATH: add it, or call $folder/drover" ;;
esac
