# The archive appears whole: written under another name, checked, renamed.
set -eu
umask 077
source=$JOBBUS_VAR_Source target=$JOBBUS_VAR_Target keep=$JOBBUS_VAR_Keep
[ -d "$source" ] || { echo "there is no folder $source" >&2; exit 1; }
mkdir -p "$target"
name=backup-$(date +%Y-%m-%dT%H-%M-%S)-$JOBBUS_EXECUTION_ID.tar.gz
trap 'rm -f "$target/.$name"' EXIT
echo "10% packing" >> "$JOBBUS_PROGRESS"
tar -C "$source" -czf "$target/.$name" .
echo "80% checking" >> "$JOBBUS_PROGRESS"
tar -tzf "$target/.$name" > /dev/null
mv "$target/.$name" "$target/$name"
echo "wrote $target/$name"

# The names begin with the time, and so do ids: their order is their age.
old=$(ls "$target" | grep '^backup-.*\.tar\.gz$' | sort -r | tail -n "+$((keep + 1))")
for each in $old; do
    rm -f "$target/$each"
    echo "removed $each"
done
echo 100 >> "$JOBBUS_PROGRESS"
