#!/usr/bin/env bash
# Compiles RocksDB once, into a cache outside the clone, and prints the folder that holds librocksdb.a:
#
#     export ROCKSDB_LIB_DIR="$(deploy/rocksdb.sh)" ROCKSDB_STATIC=1
#
# Every profile, target directory, clone and image of this machine then links it in seconds. It is the same source,
# with the same defines, as a plain `cargo build` compiles (from the crate librocksdb-sys that Cargo.lock names), but in
# a few large units: most of the time of the stock form goes into reading the same headers 343 times.
#
# Cache:  ${MERIDIAN_CACHE:-$HOME/.cache/meridian}/rocksdb/<key>, and `current`, a link to the newest.
#         The key names everything the result depends on, so a changed Cargo.lock or compiler makes a new folder.
# Safety: a folder appears under its key complete or not at all (compiled elsewhere, then renamed); two runs at once
#         compile once (flock).
# Jobs:   ROCKSDB_JOBS; else one per core, as far as memory goes (1.4 GB each).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${MERIDIAN_CACHE:-$HOME/.cache/meridian}/rocksdb
# CXX may hold a wrapper before the compiler ("ccache g++"); nothing is gained by it here.
cxx=${CXX:-g++}
cxx=${cxx##* }
units=16
features=(lz4 zstd)

say() { echo "rocksdb: $*" >&2; }

# The version of one package, as Cargo.lock has it.
locked() {
    awk -v want="name = \"$1\"" '$0 == want { getline; gsub(/version = |"/, ""); print; exit }' "$here/Cargo.lock"
}

rocksdb_version=$(locked librocksdb-sys)
lz4_version=$(locked lz4-sys)
zstd_version=$(locked zstd-sys)
if [[ -z $rocksdb_version || -z $lz4_version || -z $zstd_version ]]; then
    say "Cargo.lock names no librocksdb-sys, lz4-sys or zstd-sys"
    exit 1
fi

# The defines of the crate's build script for Linux, plus the processor: hardware crc32c needs SSE 4.2 and PCLMUL.
flags=(-O2 -std=c++20 -include cstdint -ffunction-sections -fdata-sections -fPIC -w
    -DNDEBUG -DOS_LINUX -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX -DROCKSDB_SCHED_GETCPU_PRESENT
    -DROCKSDB_AUXV_GETAUXVAL_PRESENT -DROCKSDB_FALLOCATE_PRESENT -DROCKSDB_RANGESYNC_PRESENT
    -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION -DLZ4=1 -DZSTD=1)
case $(uname -m) in
    x86_64) flags+=(-march=x86-64-v2 -mpclmul -DHAVE_PCLMUL -DHAVE_SSE42) ;;
    aarch64) flags+=(-march=armv8-a+crc+aes+crypto) ;;
esac

compiler=$("$cxx" -dumpfullversion 2>/dev/null || "$cxx" -dumpversion)
fingerprint=$(printf '%s\n' "${flags[@]}" "$lz4_version" "$zstd_version" "$("$cxx" --version | head -n 1)" "$units" |
    sha256sum | cut -c 1-8)
features_joined=$(IFS=-; echo "${features[*]}")
key="${rocksdb_version}-${features_joined}-$(basename "$cxx")${compiler}-$(uname -m)-${fingerprint}"
key=${key//[^A-Za-z0-9._+-]/_}
final=$cache/$key

finish() {
    # The link is renamed into place too, so that a reader never finds it missing.
    ln -sfn "$key" "$cache/.current.$$"
    mv -fT "$cache/.current.$$" "$cache/current"
    echo "$final"
}

if [[ -f $final/librocksdb.a ]]; then
    [[ $(readlink "$cache/current" 2>/dev/null || true) == "$key" ]] && { echo "$final"; exit 0; }
    finish
    exit 0
fi

mkdir -p "$cache"
exec 9>"$cache/.lock"
if ! flock -n 9; then
    say "waiting for another run that is compiling"
    flock 9
fi
if [[ -f $final/librocksdb.a ]]; then
    finish
    exit 0
fi

# Where cargo has unpacked a package, or nothing.
unpacked() {
    local path
    for path in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$1"; do
        [[ -d $path ]] && { echo "$path"; return; }
    done
}

export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
if [[ -z $(unpacked "librocksdb-sys-$rocksdb_version") || -z $(unpacked "lz4-sys-$lz4_version") ||
    -z $(unpacked "zstd-sys-$zstd_version") ]]; then
    say "fetching the sources"
    (cd "$here" && { cargo fetch --locked || cargo fetch; } >&2)
fi
crate=$(unpacked "librocksdb-sys-$rocksdb_version")
lz4=$(unpacked "lz4-sys-$lz4_version")/liblz4/lib
zstd=$(unpacked "zstd-sys-$zstd_version")/zstd/lib
for file in "$crate/rocksdb_lib_sources.txt" "$crate/build_version.cc" "$lz4/lz4.h" "$zstd/zstd.h"; do
    [[ -f $file ]] || { say "not found: $file"; exit 1; }
done

# Left by a run that was killed; nobody else compiles while we hold the lock.
rm -rf "$cache"/.build.*
build=$cache/.build.$$
mkdir -p "$build/lists" "$build/objects"
trap 'rm -rf "$build"' EXIT

grep -vx 'util/build_version.cc' "$crate/rocksdb_lib_sources.txt" | grep . >"$build/sources"
split -n "l/$units" -d -a 2 "$build/sources" "$build/lists/unit"

# Compiles one list of sources as a single unit. Names that are private to a file may collide inside a unit; then it is
# halved and tried again, down to single files, so that a newer RocksDB costs time and not an edit here.
cat >"$build/unit.sh" <<'UNIT'
set -euo pipefail
compile() {
    local list=$1 name lines
    name=$(basename "$list")
    sed -e 's/^/#include "/' -e 's/$/"/' "$list" >"$BUILD/$name.cc"
    if "$COMPILER" "${FLAGS[@]}" -c "$BUILD/$name.cc" -o "$BUILD/objects/$name.o" 2>"$BUILD/$name.log"; then
        return
    fi
    lines=$(wc -l <"$list")
    if [[ $lines -le 1 ]]; then
        cat "$BUILD/$name.log" >&2
        return 1
    fi
    echo "rocksdb: $name does not compile as one unit, halving it" >&2
    head -n $((lines / 2)) "$list" >"${list}a"
    tail -n +$((lines / 2 + 1)) "$list" >"${list}b"
    compile "${list}a"
    compile "${list}b"
}
IFS=$'\x1f' read -r -a FLAGS <<<"$FLAGS_JOINED"
compile "$1"
UNIT

all_flags=("${flags[@]}" "-I$crate/rocksdb/include" "-I$crate/rocksdb" "-I$crate" "-I$lz4" "-I$zstd")
jobs=${ROCKSDB_JOBS:-}
if [[ -z $jobs ]]; then
    jobs=$(nproc)
    by_memory=$(awk '/MemAvailable/ { n = int($2 / 1500000); print (n < 1) ? 1 : n }' /proc/meminfo)
    [[ $by_memory -lt $jobs ]] && jobs=$by_memory
fi
say "compiling $rocksdb_version in $units units, $jobs at a time (once; about 13 minutes of one core)"
started=$SECONDS
echo "$crate/build_version.cc" >"$build/lists/version"
COMPILER=$cxx BUILD=$build FLAGS_JOINED=$(IFS=$'\x1f'; echo "${all_flags[*]}")
export COMPILER BUILD FLAGS_JOINED
printf '%s\0' "$build"/lists/* | xargs -0 -n 1 -P "$jobs" bash "$build/unit.sh" >&2

result=$build/result
mkdir "$result"
ar crs "$result/librocksdb.a" "$build"/objects/*.o
# With the compiler's static C++ library beside it, binaries need no libstdc++.so: an image may hold nothing but them.
stdcxx=$("$cxx" -print-file-name=libstdc++.a)
[[ -f $stdcxx ]] && cp "$stdcxx" "$result/libstdc++.a"
printf '%s\n' "$key" "${flags[*]}" >"$result/BUILD"
rm -rf "$final"
mv -T "$result" "$final"
say "compiled in $((SECONDS - started)) s"
finish
