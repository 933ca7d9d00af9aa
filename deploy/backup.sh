#!/bin/sh
# Copy the work folder: submitted labels with all versions, notes on images, images that clients sent,
# users and the audit log. The server may go on: a version of a label is a folder that is there whole
# or not at all, and the users are copied by sqlite itself.
#
#   backup.sh WORKFOLDER TARGET        writes TARGET/heatmask-<time>.tar.gz, for its owner alone
#   tar -xzf FILE -C EMPTY_FOLDER      brings it back, while no server runs there
set -eu
umask 077
work=$1
target=$2
test -d "$work" || { echo "backup.sh: there is no work folder $work" >&2; exit 1; }
mkdir -p "$target"
draft=$(mktemp -d "$target/.draft.XXXXXX")
trap 'rm -rf "$draft"' EXIT

python3 - "$work/access/users.sqlite" "$draft/users.sqlite" <<'PYTHON'
import pathlib, sqlite3, sys
source = sqlite3.connect(pathlib.Path(sys.argv[1]).absolute().as_uri() + "?mode=ro", uri=True)
source.backup(sqlite3.connect(sys.argv[2]))
PYTHON

# Status 1: a file grew while it was read, as the audit log does, or a session ended.
tar -C "$work" -cf "$draft/backup.tar" --exclude='*/store/drafts' --exclude='*/store/.lock' \
    --exclude='./access/users.sqlite*' . || test $? -eq 1
tar -C "$draft" -rf "$draft/backup.tar" --transform='s,^,./access/,' users.sqlite
gzip "$draft/backup.tar"
file=$target/heatmask-$(date -u +%Y%m%dT%H%M%SZ).tar.gz
mv "$draft/backup.tar.gz" "$file"
sync "$file"
echo "$file"
