"""What goes into each image, and why: the only list to edit when an image lacks something.

Debian packages are named one by one, without following dependencies: a library that is
needed and not named is found by `elf.missing_libraries`, and one that is named and not
needed costs every pod its download.
"""

from __future__ import annotations

from dataclasses import dataclass

PYTHON = "3.11"
SUITE = "bookworm"
USER = 65532

BASE = (
    "base-files",  # /etc/os-release, which scanners read
    "netbase",  # /etc/services and /etc/protocols
    "tzdata",  # zoneinfo
    "ca-certificates",
    "libc6",
    "libc-bin",  # the C.UTF-8 locale, without which svn refuses names that are not ASCII
    "gcc-12-base",  # the licence of the next three
    "libgcc-s1",
    "libstdc++6",  # nearly every wheel with C++ in it
    "libgomp1",  # LightGBM and others that do not carry their own OpenMP
    "zlib1g",
    "libbz2-1.0",
    "liblzma5",
    "libexpat1",
    "libffi8",  # ctypes
    "libsqlite3-0",
    "libssl3",
    "libuuid1",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "python3.11-minimal",
)

FETCHERS = (
    "git",
    "openssh-client",
    "subversion",
    # curl of git-remote-https, and what it is linked to
    "libcurl3-gnutls",
    "libpcre2-8-0",
    "libbrotli1",
    "libgnutls30",
    "libgmp10",
    "libhogweed6",
    "libnettle8",
    "libidn2-0",
    "libunistring2",
    "libldap-2.5-0",
    "libnghttp2-14",
    "libp11-kit0",
    "libpsl5",
    "librtmp1",
    "libssh2-1",
    "libtasn1-6",
    "libzstd1",
    "libsasl2-2",
    "libgssapi-krb5-2",
    "libk5crypto3",
    "libkrb5-3",
    "libkrb5support0",
    "libkeyutils1",
    "libcom-err2",
    # ssh
    "libselinux1",
    # svn
    "libsvn1",
    "libapr1",
    "libaprutil1",
    "libserf-1-1",
    "libdb5.3",
    "libutf8proc2",
    "liblz4-1",
    "libmagic1",
    "libcrypt1",
)

COMPILER = (
    "gcc-12",
    "g++-12",
    "cpp-12",
    "libgcc-12-dev",
    "libstdc++-12-dev",
    "libc6-dev",
    "linux-libc-dev",
    "libcrypt-dev",
    "binutils",
    "binutils-common",
    "binutils-x86-64-linux-gnu",
    "libbinutils",
    "libctf0",
    "libctf-nobfd0",
    "libjansson4",
    "libisl23",
    "libmpc3",
    "libmpfr6",
    "libcc1-0",
    "libitm1",
    "libatomic1",
    "python3.11-dev",
    "libpython3.11-dev",
    "libpython3.11",
    "libexpat1-dev",
    "zlib1g-dev",
    "dash",  # configure scripts and makefiles of the packages that are compiled
    "coreutils",
    "make",
    "sed",
    "grep",
    "libacl1",
    "libattr1",
    "libpcre2-8-0",
    "libselinux1",
)

# Paths below the image's root that no process of ours or of a project opens.
UNWANTED = (
    "etc/apt",
    "etc/cron*",
    "etc/default",
    "etc/dpkg",
    "etc/init.d",
    "etc/magic*",
    "etc/logrotate.d",
    "etc/motd",
    "etc/issue*",
    "etc/profile*",
    "etc/update-motd.d",
    "etc/ca-certificates*",
    "etc/bash_completion.d",
    "etc/subversion",
    "usr/bin/getconf",
    "usr/bin/getent",
    "usr/bin/iconv",
    "usr/bin/ldd",
    "usr/bin/locale",
    "usr/bin/localedef",
    "usr/bin/pldd",
    "usr/bin/tzselect",
    "usr/bin/zdump",
    "usr/games",
    "usr/lib/apt",
    "usr/lib/systemd",
    "usr/lib/init",
    "usr/lib/x86_64-linux-gnu/gconv",  # iconv's tables; Python has its own codecs
    "usr/lib/x86_64-linux-gnu/audit",
    "usr/lib/x86_64-linux-gnu/engines-3",
    "usr/lib/x86_64-linux-gnu/ossl-modules",
    "usr/lib/x86_64-linux-gnu/sasl2",
    "usr/lib/x86_64-linux-gnu/krb5",
    "usr/sbin",
    "usr/share/applications",
    "usr/share/apport",
    "usr/share/base-files",
    "usr/share/bash-completion",
    "usr/share/binfmts",
    "usr/share/bug",
    "usr/share/common-licenses/BSD",
    "usr/share/debconf",
    "usr/share/debhelper",
    "usr/share/gcc",
    "usr/share/gdb",
    "usr/share/gitweb",
    "usr/share/icons",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/menu",
    "usr/share/perl5",
    "usr/share/misc/magic*",
    "usr/share/pixmaps",
    "usr/share/python3",
    "usr/share/runit",
    "usr/share/subversion",
    "usr/share/zoneinfo/posix",
    "usr/share/zoneinfo/right",
    "usr/src",
    "var/cache",
    "var/log",
    "var/backups",
    "var/lib/git",
    "var/local",
    "var/mail",
    "var/opt",
    "var/spool",
    # Python: tools for people at a desk, and modules whose libraries are not here
    "usr/lib/python3.11/idlelib",
    "usr/lib/python3.11/tkinter",
    "usr/lib/python3.11/turtle*",
    "usr/lib/python3.11/pydoc_data/topics.py",
    "usr/lib/python3.11/test",
    "usr/lib/python3.11/curses",
    "usr/lib/python3.11/lib-dynload/_curses*.so",
    "usr/lib/python3.11/lib-dynload/_dbm.*.so",
    "usr/lib/python3.11/lib-dynload/nis.*.so",
    "usr/lib/python3.11/lib-dynload/readline.*.so",
    "usr/lib/python3.11/lib-dynload/_crypt.*.so",
    "usr/lib/python3.11/lib-dynload/_test*.so",
    "usr/lib/python3.11/lib-dynload/_xxtestfuzz.*.so",
    "usr/lib/python3.11/lib-dynload/xxlimited*.so",
    # Git: Perl, Python and shell programs, servers, and a web page
    "usr/bin/git-*",
    "usr/bin/scalar",
    "usr/share/git-core/contrib",
    "usr/share/git-core/templates/hooks",
    # Compilers: no link-time optimiser, no profilers, no static interpreter
    "usr/bin/*gprof*",
    "usr/bin/*gp-*",
    "usr/bin/*-lto-dump-12",
    "usr/bin/*gcov*",
    "usr/bin/x86_64-linux-gnu-dwp",
    "usr/lib/gcc/x86_64-linux-gnu/12/lto1",
    "usr/lib/gcc/x86_64-linux-gnu/12/g++-mapper-server",
    "usr/lib/x86_64-linux-gnu/libpython3.11.a",
    "usr/lib/python3.11/config-*/*.a",
    "usr/lib/x86_64-linux-gnu/gprofng",
    # SSH: the client only
    "usr/bin/scp",
    "usr/bin/sftp",
    "usr/bin/slogin",
    "usr/bin/ssh-add",
    "usr/bin/ssh-agent",
    "usr/bin/ssh-argv0",
    "usr/bin/ssh-copy-id",
    "usr/bin/ssh-keygen",
    "usr/bin/ssh-keyscan",
    "usr/lib/openssh",
    # Subversion: the client only
    "usr/bin/svn?*",
    "usr/lib/x86_64-linux-gnu/libsvn_auth_*",  # desktop keyrings
    "usr/lib/x86_64-linux-gnu/apr-util-1",
)

# Of Python packages: tests, and tools that no process of ours runs.
UNWANTED_PYTHON = (
    "bin",
    ".lock",
    "*/tests",
    "*/*/tests",
    "*/*/*/tests",
    "onnx/backend/test",
    "onnx/test",
    "onnxruntime/datasets",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
    "kubernetes/e2e_test",
    "kubernetes/test",
    "simdjson/*.cpp",  # its sources, of which the wheel brings a copy
    "simdjson/*.h",
    "simdjson/*.p[xy][dx]",
)

# Of Git's programs only these: what a fetch of a commit over https, ssh, git:// and from files runs.
GIT_PROGRAMS = ("git", "git-remote-http", "git-remote-https")


@dataclass(frozen=True, kw_only=True)
class Image:
    """One published image.

    Attributes:
        name: Repository below the prefix, and key in ``images.json``.
        layers: Names of layers, lowest first, as `workshop` builds them.
        entrypoint: Started as process 1.
        description: Sentence for the image's label.
        why_large: Reason for more than 150 MB compressed; empty: it is not.
    """

    name: str
    layers: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    description: str
    why_large: str = ""


_PYTHON = "/opt/env/bin/python"

IMAGES = (
    Image(name="base", layers=("base",), description="Python interpreter that projects' environments stand on"),
    Image(
        name="runtime",
        layers=("base", "runtime-env", "runtime-code"),
        entrypoint=(_PYTHON, "-m", "slipway_runtime"),
        description="Answers predictions for one model",
    ),
    Image(
        name="operator",
        layers=("base", "operator-env", "operator-code"),
        entrypoint=(_PYTHON, "-m", "slipway_operator.controllers"),
        description="Reconciles ModelDeployments and RetrainJobs",
    ),
    Image(
        name="builder",
        layers=("base", "fetchers", "programs", "builder-env", "operator-code"),
        entrypoint=(_PYTHON, "-m", "slipway_operator.builder"),
        description="Fetches, packages and builds projects",
    ),
    Image(
        name="builder-compiler",
        layers=("base", "fetchers", "programs", "compiler", "builder-env", "operator-code"),
        entrypoint=(_PYTHON, "-m", "slipway_operator.builder"),
        description="The builder with a C and C++ compiler, for packages that exist only as source",
    ),
    Image(name="tools", layers=("base", "tools"), description="Last layer: the exporter and what it converts with"),
)
