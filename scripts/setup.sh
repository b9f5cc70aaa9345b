#!/bin/sh
# Installs what the scripts need: npm packages, a Docker Engine with Compose v2, base images.
# Idempotent; takes less than a second if nothing is missing. Not used on the NAS: DSM has its own engine.
#
# A running engine is used and never reconfigured. A missing one is installed only on Debian or Ubuntu, as root;
# on other systems this script prints what to install and exits.
# shellcheck disable=SC3043 # every shell in use has local
set -eu
cd "$(dirname "$0")/.."

api_base_image=debian:trixie-slim # the base image of both Dockerfiles in examples/
# As in the scripts, the environment overrides .env.blue-green, which overrides the default. The file is never executed.
setting() {
  local value
  eval "value=\${$1:-}"
  [ -n "$value" ] || value=$(sed -nE "s/^$1=[\"']?([^\"'#]*[^\"'# ]).*/\1/p" .env.blue-green 2>/dev/null | tail -1) || true
  printf '%s' "${value:-$2}"
}
nginx_image=$(setting NGINX_IMAGE nginx:1.30)
docker=$(setting DOCKER_CMD docker)
# docker itself reads these.
for name in DOCKER_HOST DOCKER_CONTEXT DOCKER_CONFIG DOCKER_TLS_VERIFY DOCKER_CERT_PATH; do
  value=$(setting "$name" '')
  [ -z "$value" ] || export "$name=$value"
done

say() { printf 'setup: %s\n' "$*"; }
fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}
work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT # a command that fails here would change the exit code
scratch() { work=${work:-$(mktemp -d)}; }

is_mac() { [ "$(uname)" = Darwin ]; }

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && grep -qE '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release; }

apt_install() {
  say "installing the system packages $*"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

npm_packages() {
  node -e 'const [a, b, c] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && (b > 18 || (b === 18 && c > 0))) ? 0 : 1)' ||
    fail "Node $(node --version) is too old. Install Node 20.18.1 or newer, then run this again."
  # npm writes this file last, so an interrupted install is repeated.
  [ -f node_modules/.package-lock.json ] && [ -z "$(find package-lock.json -newer node_modules/.package-lock.json)" ] && return
  say 'installing the npm packages (npm ci)'
  npm ci --no-audit --no-fund --loglevel=error
  touch node_modules/.package-lock.json
}

engine_answers() { "$docker" version --format '{{.Server.Version}}' >/dev/null 2>&1; }

mac_engine() {
  command -v "$docker" >/dev/null ||
    fail "'$docker' is missing. Install Docker Desktop and open it once, or install colima (docs/macos.md), then run this again."
  fail "'$docker version' cannot reach a Docker Engine. Open Docker Desktop or run 'colima start', wait until it runs, then run this again. If it runs, see 'docker context ls'."
}

engine() {
  engine_answers && return
  [ -z "${DOCKER_HOST:-}" ] || fail "the Docker Engine at DOCKER_HOST=$DOCKER_HOST does not respond. Start it, or correct DOCKER_HOST in the environment or in .env.blue-green."
  is_mac && mac_engine
  can_install || fail "'$docker version' cannot reach a Docker Engine. Install or start Docker 20.10 or newer with Compose 2.20 or newer (https://docs.docker.com/engine/install/), make sure that this user can access it, then run this again."
  command -v dockerd >/dev/null || apt_install docker.io iptables
  engine_answers && return
  say 'starting the Docker Engine'
  if [ -d /run/systemd/system ]; then
    systemctl start docker
  else
    # Stale pid files, left by a power cut, would prevent dockerd from starting.
    pgrep -x dockerd >/dev/null || rm -f /var/run/docker.pid /run/docker/containerd/containerd.pid
    setsid nohup dockerd >/var/log/dockerd.log 2>&1 </dev/null &
  fi
  local tries=0
  while [ "$((tries += 1))" -le 30 ]; do
    engine_answers && return
    sleep 1
  done
  fail 'the Docker Engine did not start within 30 s: see /var/log/dockerd.log or journalctl -u docker.'
}

compose_answers() { "$docker" compose version --short 2>/dev/null | grep -qE '^v?([2-9]|[1-9][0-9])\.'; }

compose() {
  compose_answers && return
  is_mac && fail "'$docker compose' is missing. Docker Desktop has it. With colima: brew install docker-compose docker-buildx, and add their folder to ~/.docker/config.json (docs/macos.md)."
  can_install || fail "'$docker compose' is missing. Install Compose v2, 2.20 or newer: https://docs.docker.com/compose/install/linux/"
  apt-get update -qq # without package lists, nothing below is found
  if apt-cache show docker-compose-v2 >/dev/null 2>&1; then # Ubuntu
    apt_install docker-compose-v2
  elif apt-cache policy docker-compose | grep -qE 'Candidate: (2|[3-9])'; then # Debian 13 and newer
    apt_install docker-compose
  else
    compose_from_newer_debian
  fi
  compose_answers || fail "'$docker compose' still does not work after the installation."
}

# Prints the mirror that this system's apt uses; empty on systems other than Debian, where debootstrap uses its default.
debian_mirror() {
  # shellcheck disable=SC2016 # apt-get fills these in
  apt-get indextargets --format '$(SITE) $(LABEL) $(CODENAME)' 'Created-By: Packages' |
    awk '$2 == "Debian" && $3 !~ /-/ { print $1; exit }'
}

apt_get_there() {
  apt-get -qq -o "Dir::Etc::SourceList=$work/apt/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$work/apt/lists" \
    -o "Dir::Cache=$work/apt/cache" -o APT::Sandbox::User=root "$@"
}

# Debian 12 has Compose v1 only. The newer package contains one static binary, which is unpacked outside of the
# package system, so that the machine does not mix packages of two releases.
compose_from_newer_debian() {
  local plugins=/usr/local/lib/docker/cli-plugins
  [ -n "$(debian_mirror)" ] || fail "this system has no Compose v2 package. Install it, 2.20 or newer: https://docs.docker.com/compose/install/linux/"
  say "unpacking Compose v2 from Debian 13's docker-compose package into $plugins"
  scratch
  mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial" "$plugins"
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s trixie main\n' "$(debian_mirror)" >"$work/apt/sources.list"
  chmod -R a+rX "$work"
  apt_get_there update
  (cd "$work" && apt_get_there download docker-compose)
  dpkg -x "$work"/docker-compose_*.deb "$work/compose"
  install -m 755 "$(find "$work/compose" -name docker-compose -type f -path '*cli-plugins*')" "$plugins/docker-compose"
}

has_image() { "$docker" image inspect "$1" >/dev/null 2>&1; }

pull() {
  local error
  say "pulling $1"
  error=$("$docker" pull --quiet "$1" 2>&1 >/dev/null) && return
  say "cannot pull $1: $error"
  return 1
}

base_images() {
  has_image "$api_base_image" || pull "$api_base_image" || debian_base
  has_image "$nginx_image" || pull "$nginx_image" || nginx_from_debian
}

debian_base() {
  can_install || fail "$api_base_image can be neither pulled nor built on this system. Provide access to a registry, or load the image with 'docker load'."
  command -v debootstrap >/dev/null || apt_install debootstrap debian-archive-keyring
  say "building $api_base_image from Debian packages (debootstrap, about a minute)"
  scratch
  # shellcheck disable=SC2046 # no argument if there is no mirror
  debootstrap --variant=minbase --include=ca-certificates trixie "$work/trixie" $(debian_mirror) >"$work/debootstrap.log" 2>&1 ||
    fail "debootstrap failed: $(tail -20 "$work/debootstrap.log")"
  rm -rf "$work"/trixie/var/cache/apt/archives/*.deb
  tar -C "$work/trixie" -cf "$work/trixie.tar" . # not into a pipe, whose failure would be lost
  "$docker" import --change 'CMD ["bash"]' "$work/trixie.tar" "$api_base_image" >/dev/null
}

# keepalive_min_timeout and `resolve` require nginx 1.29.7 or newer, which is in Debian testing.
nginx_from_debian() {
  has_image "$api_base_image" || debian_base
  say "building $nginx_image from Debian testing's nginx package"
  scratch
  mkdir -p "$work/nginx"
  cat >"$work/nginx/Dockerfile" <<DOCKERFILE
FROM $api_base_image
RUN for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do \
      [ ! -f \$file ] || sed 's/trixie/testing/' \$file >/etc/apt/sources.list.d/testing.\${file##*.}; \
    done \
 && apt-get -o Acquire::Check-Valid-Until=false update && apt-get install -y --no-install-recommends -t testing nginx \
 && rm -rf /var/lib/apt/lists/* /etc/nginx/sites-enabled/*
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]
DOCKERFILE
  "$docker" build -t "$nginx_image" "$work/nginx" >"$work/build.log" 2>&1 || fail "the build of $nginx_image failed: $(tail -20 "$work/build.log")"
}

registry_program() {
  say "unpacking docker-registry from its package into /usr/local/bin"
  scratch
  chmod a+rx "$work"
  apt-get update -qq
  (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download docker-registry)
  dpkg -x "$work"/docker-registry_*.deb "$work/registry"
  install -m 755 "$work/registry/usr/bin/docker-registry" /usr/local/bin/docker-registry
}

# What only the tests need: `npm test` runs this script with the argument "test".
test_tools() {
  local tool missing='' tools='busybox lsof shellcheck python3'
  is_mac && tools='shellcheck python3' # the tests with BusyBox need Linux, and Homebrew has none for macOS
  for tool in $tools; do
    command -v "$tool" >/dev/null || missing="$missing $tool"
  done
  # Not installed as a package, which would start a registry on port 5000 of all addresses.
  if ! is_mac && ! command -v docker-registry >/dev/null; then
    if can_install; then registry_program; else missing="$missing docker-registry"; fi
  fi
  [ -n "$missing" ] || return 0
  # shellcheck disable=SC2086 # one argument per tool
  if can_install; then
    apt_install $missing
  elif is_mac; then
    say "some tests will be skipped; to run them: brew install$missing"
  else
    say "some tests will be skipped, because these commands are missing:$missing"
  fi
}

npm_packages
engine
compose
base_images
[ "${1:-}" != test ] || test_tools
