#!/bin/bash
# Build what the executable stands on: musl, OpenSSL's client half, zlib, libpq, and CPython as a library.
#
#   base.sh SOURCES WORK PREFIX [CROSS]
#
# SOURCES has the unpacked sources, each in a folder of its name. WORK is scratch. PREFIX gets include/ and lib/, and
# without CROSS bin/python3 and lib/python3.13: the same CPython, to compile modules with. CROSS is another machine's
# GNU triplet; then PYTHON names that Python.
set -euo pipefail
sources=$(realpath "$1") work=$(realpath -m "$2") prefix=$(realpath -m "$3") cross=${4:-}
machine=$(uname -m)
if [[ $cross ]]; then machine=${cross%%-*}; fi
mkdir -p "$work" "$prefix/bin" "$prefix/include"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:?} LC_ALL=C TZ=UTC PATH=$prefix/bin:$PATH
# What is built must not know where, nor what its builder has set.
unset CFLAGS CPPFLAGS LDFLAGS LIBS CC CPP AR RANLIB PKG_CONFIG_PATH MAKEFLAGS MAKELEVEL PYTHONPATH PYTHONHOME
jobs=${JOBS:-$(nproc)}

step() {
    local name=$1 started=$SECONDS
    "build_$name" >"$work/$name.log" 2>&1 &  # in the background, or its errors would not end it
    if wait $!; then
        echo "  $name: $((SECONDS - started)) s" >&2
    else
        tail -n 30 "$work/$name.log" | cut -c 1-300 >&2
        echo "base.sh: $name can't be built: see $work/$name.log" >&2
        exit 1
    fi
}

build_musl() {
    cd "$work" && rm -rf musl && cp -r "$sources/musl" musl && cd musl
    CC=${cross:+$cross-}gcc AR=${cross:+$cross-}ar RANLIB=${cross:+$cross-}ranlib CFLAGS="-O2 -ffile-prefix-map=$work=." ./configure \
        --prefix="$prefix" --syslibdir="$prefix/lib" --disable-shared --enable-wrapper=gcc --target="${cross:-$machine-linux-gnu}"
    make -j"$jobs" install
    # The kernel's headers are the distribution's: musl has none.
    local folder
    for folder in /usr/"$machine"-linux-gnu/include /usr/include/"$machine"-linux-gnu /usr/include; do
        [[ -d $folder/asm && ! -e $prefix/include/asm ]] && ln -s "$folder/asm" "$prefix/include/asm"
        [[ -d $folder/linux && ! -e $prefix/include/linux ]] && ln -s "$folder/linux" "$prefix/include/linux"
        [[ -d $folder/asm-generic && ! -e $prefix/include/asm-generic ]] && ln -s "$folder/asm-generic" "$prefix/include/asm-generic"
    done
    # The flags are in a wrapper, for OpenSSL and CPython write theirs into what they build.
    cat >"$prefix/bin/static-cc" <<END
#!/bin/sh
case "\$*" in *--print-multiarch*) exit 0 ;; esac  # CPython would find it wrong for musl
exec "$prefix/bin/musl-gcc" -fno-pie -no-pie -static -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables \
  -fstack-protector-strong -ffile-prefix-map="$work"=. -ffile-prefix-map="$prefix"=. "\$@" -O2 -g0
END
    chmod +x "$prefix/bin/static-cc"
    local tool
    for tool in ar ranlib strip; do
        ln -sf "$(command -v "${cross:+$cross-}$tool")" "$prefix/bin/static-$tool"
    done
}

build_openssl() {
    local target=linux-x86_64
    [[ $machine == aarch64 ]] && target=linux-aarch64
    cd "$work" && rm -rf openssl && cp -r "$sources/openssl" openssl && cd openssl
    # 0.7 MB, to encrypt faster what nobody sends through a lock.
    sed -i 's/(\$avx512vaes>0)/(0)/' crypto/modes/asm/aes-gcm-avx512.pl
    CC=static-cc AR=static-ar RANLIB=static-ranlib ./Configure "$target" --prefix=/usr --libdir=lib --openssldir=/etc/ssl \
        no-shared no-pic no-module no-dso no-engine no-async no-legacy no-apps no-tests no-docs no-quic no-dtls no-ssl3 no-tls1 no-tls1_1 \
        no-comp no-srp no-psk no-ct no-cms no-ts no-ocsp no-srtp no-sctp no-ssl-trace no-gost no-autoload-config no-cmp \
        no-bf no-camellia no-cast no-idea no-md4 no-mdc2 no-rc2 no-rc4 no-rmd160 no-seed no-whirlpool no-siphash no-sm2 no-sm3 \
        no-sm4 no-aria no-blake2 no-scrypt no-argon2 no-ec2m no-ml-dsa no-slh-dsa no-uplink no-static-engine
    make -j"$jobs" build_libs
    make install_dev DESTDIR="$work/stage"  # its prefix is in what is built
    cp -r "$work/stage/usr/include/openssl" "$prefix/include/"
    cp "$work/stage/usr/lib/"*.a "$prefix/lib/"
}

build_zlib() {
    cd "$work" && rm -rf zlib && cp -r "$sources/zlib" zlib && cd zlib
    CC=static-cc AR=static-ar RANLIB=static-ranlib ./configure --static --prefix="$prefix"
    make -j"$jobs" libz.a
    install -m 644 libz.a "$prefix/lib/"
    install -m 644 zlib.h zconf.h "$prefix/include/"
}

build_libpq() {
    cd "$work" && rm -rf postgresql && cp -r "$sources/postgresql" postgresql && cd postgresql
    CC=static-cc AR=static-ar RANLIB=static-ranlib CPPFLAGS="-I$prefix/include" LDFLAGS="-L$prefix/lib" ./configure \
        --prefix=/usr --sysconfdir=/etc/postgresql-common ${cross:+--host="$cross"} --with-openssl --without-readline --without-icu \
        --without-zlib --without-libcurl --disable-rpath --disable-nls --enable-option-checking=fatal
    make -C src/include -j"$jobs"
    make -C src/backend generated-headers
    make -C src/common -j"$jobs" libpgcommon_shlib.a
    make -C src/port -j"$jobs" libpgport_shlib.a
    make -C src/interfaces/libpq -j"$jobs" libpq.a
    install -m 644 src/interfaces/libpq/libpq.a src/common/libpgcommon_shlib.a src/port/libpgport_shlib.a "$prefix/lib/"
    install -m 644 src/interfaces/libpq/libpq-fe.h src/include/postgres_ext.h "$prefix/include/"
}

build_python() {
    cd "$work" && rm -rf python && cp -r "$sources/python3.13" python && cd python
    : >Modules/Setup.stdlib.in
    cp "$(dirname "$recipe")/Setup.local" Modules/Setup.local
    sed -i "s|@PREFIX@|$prefix|g" Modules/Setup.local
    # Instructions that adapt themselves write into the functions' code, and each process would have to copy these pages. A
    # turn is too short to gain from them. A CPython without GIL has none either.
    sed -i 's/^\(#define ENABLE_SPECIALIZATION\) 1$/\1 0/' Include/internal/pycore_code.h
    # After each fork it would count our threads, to warn of them: there is one.
    sed -i 's|fopen("/proc/self/stat", "r")|NULL|' Modules/posixmodule.c
    CC=static-cc AR=static-ar RANLIB=static-ranlib OPT='-DNDEBUG -O2' ./configure \
        --prefix=/usr --disable-shared --without-ensurepip --disable-test-modules --without-doc-strings --without-static-libpython \
        --with-builtin-hashlib-hashes=blake2 --with-openssl="$prefix" --without-readline --without-mimalloc --with-pkg-config=no \
        ${cross:+--host="$cross" --build="$(gcc -dumpmachine)" --with-build-python="${PYTHON:?}"} \
        ac_cv_buggy_getaddrinfo=no ac_cv_broken_nice=no ac_cv_func_close_range=no ac_cv_file__dev_ptmx=yes ac_cv_file__dev_ptc=no ac_cv_func_dlopen=no MODULE_BUILDTYPE=static
    make -j"$jobs" libpython3.13.a
    install -m 644 libpython3.13.a "$prefix/lib/"
    mkdir -p "$prefix/include/python3.13"
    cp -r Include/. "$prefix/include/python3.13/"
    cp pyconfig.h "$prefix/include/python3.13/"
    if [[ ! $cross ]]; then
        make -j"$jobs" python
        install -m 755 python "$prefix/bin/python3.13"
        rm -rf "$prefix/lib/python3.13"
        cp -r Lib "$prefix/lib/python3.13"
        rm -rf "$prefix"/lib/python3.13/{test,idlelib,ensurepip,tkinter,turtledemo,lib2to3}
    fi
}

recipe=$(realpath "$0")
step musl
step openssl
step libpq
step python
step zlib
