#!/usr/bin/env bash
# The tour: what Meridian promises, shown on real data and checked at every step.
#
# Debian's package index (name to stanza, more than 50,000 records) is imported in one zone; a zone is cut off; the same
# 1,000 keys are written on both sides of the cut, and other keys on each side; the cut heals; all zones must hold the same
# data, with siblings on exactly those 1,000 keys and nothing lost; a merge command resolves them; a node is killed and
# comes back.
#
#   TOUR_ZONE=eu-west   the zone that is cut off (ap-south)
#   TOUR_SEED=7         picks the keys (1)
#   TOUR_NODES=3        nodes per zone (1)
#
# Expects kv and kv-node in the path. Exit code 0 when every check held.
set -euo pipefail

ZONES=(us-east eu-west ap-south)
CUT=${TOUR_ZONE:-ap-south}
SEED=${TOUR_SEED:-1}
NODES=${TOUR_NODES:-1}
RECORDS_MIN=50000
BOTH=1000
OTHERS=500
[[ " ${ZONES[*]} " == *" $CUT "* ]] || { echo "tour: no zone $CUT" >&2; exit 2; }

HOME_ZONE=
REST=()
for zone in "${ZONES[@]}"; do
    [[ $zone == "$CUT" ]] && continue
    REST+=("$zone")
    HOME_ZONE=${HOME_ZONE:-$zone}
done

work=$(mktemp -d)
export XDG_STATE_HOME="$work/state"
started=$(date +%s%N)

finish() {
    local code=$?
    kv demo --stop >/dev/null 2>&1 || true
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT

say() { printf '\n== %s\n' "$*"; }
fail() { echo "tour: FAILED: $*" >&2; exit 1; }
seconds_since() { awk -v a="$1" -v b="$(date +%s%N)" 'BEGIN { printf "%.1f s", (b - a) / 1e9 }'; }

as_root() { if [[ $(id -u) -eq 0 ]]; then "$@"; else sudo "$@"; fi; }

# Name to stanza, one JSON object a line; perl is part of every Debian.
package_index() {
    apt-cache dumpavail | perl -00 -ne '
        next unless /^Package: (\S+)/m;
        my $key = $1;
        next if $seen{$key}++;
        s/\n+\z//;
        s/([\\"])/\\$1/g;
        s/\n/\\n/g; s/\t/\\t/g; s/\r/\\r/g;
        s/([\x00-\x1f])/sprintf("\\u%04x", ord $1)/ge;
        print "{\"key\":\"$key\",\"value\":\"$_\"}\n";'
}

# Settled: every zone has everything of every other, and all digests are the same.
settle() {
    local from
    from=$(date +%s%N)
    kv lag --wait 180s >/dev/null || fail "zones did not catch up"
    kv digest --wait 60s >"$work/digests" || { cat "$work/digests"; fail "digests differ"; }
    cat "$work/digests"
    echo "settled in $(seconds_since "$from")"
}

# Zone, keys, conflicts and digest, a line per zone.
digest_lines() {
    kv --json digest | perl -ne '
        my $line = $_;
        my @fields = map { $line =~ /"$_":"?([^",}]*)/ ? $1 : "?" } qw(zone keys conflicts digest);
        print "@fields\n";'
}

same_digests() {
    local distinct
    distinct=$(digest_lines | cut -d' ' -f2- | sort -u | wc -l)
    [[ $distinct -eq 1 ]] || { digest_lines; fail "zones hold different data"; }
}

conflicts_in() { kv --zone "$1" conflicts --count; }

say "Debian's package index"
package_index >"$work/packages.jsonl" 2>/dev/null || true
if [[ $(wc -l <"$work/packages.jsonl") -lt $RECORDS_MIN ]]; then
    as_root apt-get -q -o DPkg::Lock::Timeout=300 update >/dev/null
    package_index >"$work/packages.jsonl"
fi
records=$(wc -l <"$work/packages.jsonl")
[[ $records -ge $RECORDS_MIN ]] || fail "$records records; the tour wants $RECORDS_MIN"
echo "$records records, $(du -h "$work/packages.jsonl" | cut -f1)"

# Three disjoint sets of keys, picked by the seed.
perl -ne 'print "$1\n" if /^\{"key":"([^"]*)"/' "$work/packages.jsonl" |
    perl -e 'my ($seed) = @ARGV; @ARGV = (); srand $seed; my @keys = <STDIN>;
        for (my $i = $#keys; $i > 0; $i--) { my $j = int rand($i + 1); @keys[$i, $j] = @keys[$j, $i] } print @keys' "$SEED" \
        >"$work/shuffled"
sed -n "1,${BOTH}p" "$work/shuffled" | sort >"$work/both"
sed -n "$((BOTH + 1)),$((BOTH + OTHERS))p" "$work/shuffled" | sort >"$work/only-rest"
sed -n "$((BOTH + OTHERS + 1)),$((BOTH + 2 * OTHERS))p" "$work/shuffled" | sort >"$work/only-cut"
values() { awk -v side="$1" '{ printf "{\"key\":\"%s\",\"value\":\"%s was here: %s\"}\n", $0, side, $0 }'; }
cat "$work/both" "$work/only-rest" | values rest >"$work/rest.jsonl"
cat "$work/both" "$work/only-cut" | values cut >"$work/cut.jsonl"

say "three zones, $NODES node(s) each, 30, 50 and 70 ms apart"
environment=$(kv demo --nodes "$NODES" --detach)
# shellcheck disable=SC1090
source "$environment"
kv status

say "import in $HOME_ZONE"
from=$(date +%s%N)
kv --zone "$HOME_ZONE" import "$work/packages.jsonl"
echo "imported in $(seconds_since "$from")"
echo "lag at the end of the import:"
kv lag
settle
[[ $(digest_lines | head -1 | cut -d' ' -f2) -eq $records ]] || fail "not every record is there"

say "$CUT is cut off; both sides go on"
for zone in "${REST[@]}"; do kv fault block "$CUT" "$zone"; done
kv --zone "$HOME_ZONE" import "$work/rest.jsonl"
kv --zone "$CUT" import "$work/cut.jsonl"
echo "lag while cut off:"
kv lag
[[ $(conflicts_in "$HOME_ZONE") -eq 0 && $(conflicts_in "$CUT") -eq 0 ]] || fail "conflicts before the zones met"

say "heal"
kv fault heal
settle
same_digests
for zone in "${ZONES[@]}"; do
    found=$(conflicts_in "$zone")
    echo "$zone: $found keys in conflict"
    [[ $found -eq $BOTH ]] || fail "$zone has $found conflicts, not $BOTH"
    kv --zone "$zone" --json conflicts | perl -ne 'print "$1\n" if /"key":"([^"]*)"/' | sort >"$work/found"
    cmp -s "$work/both" "$work/found" || fail "$zone has conflicts on other keys than those written twice"
done
for zone in "${ZONES[@]}"; do
    key=$(head -1 "$work/only-rest")
    [[ $(kv --zone "$zone" get "$key" --raw) == "rest was here: $key" ]] || fail "$zone lost a write of the rest"
    key=$(head -1 "$work/only-cut")
    [[ $(kv --zone "$zone" get "$key" --raw) == "cut was here: $key" ]] || fail "$zone lost a write of $CUT"
done
kv get "$(head -1 "$work/both")" || [[ $? -eq 4 ]]

say "a merge command resolves them"
# The command is shown every sibling; it keeps a record of them and joins their values.
cat >"$work/merge" <<'MERGE'
#!/usr/bin/env bash
set -euo pipefail
siblings=$(cat)
printf '%s\n' "$siblings" >>"$TOUR_MERGED"
printf '%s' "$siblings" | perl -0777 -ne 'my @values = sort(/"value":"([^"]*)"/g); print join(" | ", @values)'
MERGE
chmod +x "$work/merge"
from=$(date +%s%N)
TOUR_MERGED="$work/merged" kv --zone "$HOME_ZONE" resolve --all --with "$work/merge" >/dev/null
echo "resolved in $(seconds_since "$from")"
[[ $(grep -c 'rest was here' "$work/merged") -eq $BOTH ]] || fail "a sibling of the rest was lost"
[[ $(grep -c 'cut was here' "$work/merged") -eq $BOTH ]] || fail "a sibling of $CUT was lost"
settle
same_digests
for zone in "${ZONES[@]}"; do
    [[ $(conflicts_in "$zone") -eq 0 ]] || fail "$zone still has conflicts"
done
kv --zone "$CUT" get "$(head -1 "$work/both")"

say "kill -9, and back"
victim=n2
printf 'kill %s\n' "$victim" | kv shell
printf 'start %s\n' "$victim" | kv shell
settle
same_digests

say "export from every zone"
for zone in "${ZONES[@]}"; do
    kv --zone "$zone" export "$work/$zone.jsonl" 2>/dev/null
    sha256sum <"$work/$zone.jsonl" | cut -c1-16
done
for zone in "${REST[@]}"; do cmp -s "$work/$CUT.jsonl" "$work/$zone.jsonl" || fail "exports differ"; done

say "the tour passed in $(seconds_since "$started")"
