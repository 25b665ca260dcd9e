#!/bin/sh
# install.sh BUILD SOURCE: installs to a directory of its own and builds a user's project there, by find_package and by
# pkg-config. A user needs no package that only the library itself links.
set -eu
build=$1 source=$2
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT

cmake --install "$build" --prefix "$prefix" >/dev/null
cmake -S "$source/install" -B "$prefix/cmake" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" >/dev/null
cmake --build "$prefix/cmake" >/dev/null
"$prefix/cmake/user"

PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name cldsa.pc)")
LD_LIBRARY_PATH=$(dirname "$(find "$prefix" -name libcldsa.so)")
export PKG_CONFIG_PATH LD_LIBRARY_PATH
# shellcheck disable=SC2046,SC2086 # the flags are several words
cc ${CFLAGS:-} "$source/install/main.c" -o "$prefix/user" $(pkg-config --cflags --libs cldsa)
"$prefix/user"
pkg-config --libs --static cldsa | grep -q -- -lcjson
