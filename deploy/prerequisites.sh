#!/usr/bin/env bash
# Installs what a fresh Debian machine lacks to build, test and run Meridian: a C++ compiler and make, libclang with
# its own headers (bindgen reads RocksDB's C header through it), protoc (raft-rs's build asks for it; our own protocol
# needs none), ccache, pkg-config, and fuse3 (one test mounts a file
# system of its own). Rust is not installed, only asked for.
#
# It asks for what the build uses, not for package names, so a machine that has it from elsewhere is left alone. When
# nothing is missing it prints nothing and takes some milliseconds.
set -euo pipefail

# True when one of the paths (globs) exists.
have_file() {
    local path
    for path in "$@"; do
        [[ -e $path ]] && return 0
    done
    return 1
}

have_libclang() {
    [[ -n ${LIBCLANG_PATH:-} ]] && return 0
    have_file /usr/lib/llvm-*/lib/libclang{,-[0-9]*}.so* /usr/lib/*/libclang{,-[0-9]*}.so* \
        /usr/lib{64,}/libclang{,-[0-9]*}.so*
}

# libclang alone is not enough: bindgen then fails with "'stdbool.h' file not found".
have_libclang_headers() {
    [[ -n ${LIBCLANG_PATH:-} ]] && return 0
    have_file /usr/lib/llvm-*/lib/clang/*/include/stdbool.h /usr/lib/clang/*/include/stdbool.h \
        /usr/lib64/clang/*/include/stdbool.h
}

missing=()
command -v g++ >/dev/null || missing+=(g++)
command -v make >/dev/null || missing+=(make)
command -v pkg-config >/dev/null || missing+=(pkg-config)
command -v ccache >/dev/null || missing+=(ccache)
command -v flock >/dev/null || missing+=(util-linux)
command -v protoc >/dev/null || missing+=(protobuf-compiler)
have_libclang || missing+=(libclang1-14)
have_libclang_headers || missing+=(libclang-common-14-dev)
command -v fusermount3 >/dev/null || missing+=(fuse3)

as_root() {
    if [[ $(id -u) -eq 0 ]]; then
        "$@"
    else
        sudo "$@"
    fi
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -q "$@"
}

install_missing() {
    if ! command -v apt-get >/dev/null; then
        echo "prerequisites: please install what provides: ${missing[*]} (no apt-get here)" >&2
        exit 1
    fi
    if [[ $(id -u) -ne 0 ]] && ! command -v sudo >/dev/null; then
        echo "prerequisites: run as root: apt-get install -y --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    echo "prerequisites: installing ${missing[*]}"
    # The lists may be absent (a container) or old (a package has moved): renew them only then.
    apt install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 && return
    apt update >/dev/null
    if ! apt install -y --no-install-recommends "${missing[@]}" >/dev/null; then
        echo "prerequisites: could not install ${missing[*]}; libclang of any version from 9 on will do" >&2
        exit 1
    fi
}

if [[ ${#missing[@]} -gt 0 ]]; then
    install_missing
fi

if ! PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin" command -v cargo >/dev/null; then
    echo "prerequisites: Rust is missing; get it with: curl -sSf https://sh.rustup.rs | sh -s -- -y" >&2
    exit 1
fi
