#!/bin/sh
# Starts nginx with the newest rendered files that it accepts, then checks once a second for new files and applies them
# with one reload. nginx never reads a file that is being replaced: it reads a copy whose checksums are correct.
#
# $NGINX_CONFIG_DIR/current  the files that the controller wrote last; a Kubernetes ConfigMap can be mounted there
#   instead
# $NGINX_CONFIG_DIR/proven   the files that nginx last accepted, for a start while `current` is rejected
# $NGINX_ACTIVE_DIR/current  what nginx reads: a link to a folder with links to the hand-written files and a copy of the
#   rendered files
# $NGINX_ACTIVE_DIR/refused  the generation that nginx rejects, and nginx's reason
FILES=${NGINX_FILES:-/etc/nginx}
NGINX_CONFIG_DIR=${NGINX_CONFIG_DIR:-/etc/nginx/offered}
SECRETS=${SECRETS:-/run/secrets/manyeyes}
NGINX_ACTIVE_DIR=${NGINX_ACTIVE_DIR:-/tmp/gateway}
NGINX_BINARY=${NGINX_BINARY:-nginx}
GLOBALS=${NGINX_GLOBALS:-daemon off;}
WATCHED_NAME=${WATCHED_NAME:-}  # a host name in the files whose address may change (Swarm): nginx resolves it only when it loads them
SECRETS_EVERY=10  # the secrets, which are read completely, and WATCHED_NAME are checked in every tenth poll

export TZ=UTC  # for the times in the log

count=0     # folders created so far
running=""  # the active generation
refused=""  # the last rejected generation and the secrets' checksum at that time
secrets=""  # the secrets' checksum
address=""  # the address of WATCHED_NAME

# Writes one JSON log line in the format of manyeyes/observability/log_format.py.
say() {
    reason=$(printf '%s' "$3" | tr '\n\t' '  ' | tr -d '[:cntrl:]' | sed 's/\\/\\\\/g; s/"/\\"/g')
    printf '{"at":"%s","level":"%s","part":"gateway","event":"%s","generation":"%s","reason":"%s"}\n' \
        "$(date -u +%Y-%m-%dT%H:%M:%S.%3NZ)" "${4:-info}" "$1" "$2" "$reason"
}

secrets_sum() { cat "$SECRETS"/* 2>/dev/null | cksum; }

# Copies $NGINX_CONFIG_DIR/$1 to $NGINX_ACTIVE_DIR/next. Fails while the files are missing or being replaced.
copy_generation() {
    rm -rf "$NGINX_ACTIVE_DIR/next"
    mkdir -p "$NGINX_ACTIVE_DIR/next/rendered" || return 1
    cp -L "$NGINX_CONFIG_DIR/$1"/* "$NGINX_ACTIVE_DIR/next/rendered/" 2>/dev/null || return 1
    (cd "$NGINX_ACTIVE_DIR/next/rendered" && sha256sum -c generation.sha256 >/dev/null 2>&1) || return 1
    for part in nginx.conf conf.d njs; do
        ln -s "$FILES/$part" "$NGINX_ACTIVE_DIR/next/$part" || return 1
    done
}

# Activates $NGINX_ACTIVE_DIR/next for the next start or reload. Fails if nginx rejects it, and stores nginx's reason.
activate() {
    read -r generation <"$NGINX_ACTIVE_DIR/next/rendered/generation"
    if ! output=$("$NGINX_BINARY" -t -q -p "$NGINX_ACTIVE_DIR/next/" -c nginx.conf -g "$GLOBALS" 2>&1); then
        refused="$generation $secrets"
        printf '%s\n%s\n' "$generation" "$output" >"$NGINX_ACTIVE_DIR/refused.new" && mv "$NGINX_ACTIVE_DIR/refused.new" "$NGINX_ACTIVE_DIR/refused"
        say configuration_refused "$generation" "$output" error
        return 1
    fi
    count=$((count + 1))
    old=$(readlink "$NGINX_ACTIVE_DIR/current")
    mv "$NGINX_ACTIVE_DIR/next" "$NGINX_ACTIVE_DIR/$count-$generation"
    ln -s "$count-$generation" "$NGINX_ACTIVE_DIR/link" && mv -T "$NGINX_ACTIVE_DIR/link" "$NGINX_ACTIVE_DIR/current"
    [ -z "$old" ] || rm -rf "${NGINX_ACTIVE_DIR:?}/$old"
    running=$generation
}

# True if WATCHED_NAME has a new address.
update_address() {
    [ -n "$WATCHED_NAME" ] && new_address=$(getent hosts "$WATCHED_NAME") && [ "$new_address" != "$address" ] &&
        address=$new_address
}

# One poll. nginx has the process id of this shell, because the shell executes it.
poll() {
    polls=$((polls + 1))
    if [ $((polls % SECRETS_EVERY)) -eq 0 ] && [ "$(secrets_sum)" != "$secrets" ]; then
        secrets=$(secrets_sum)
        why="certificates or keys changed"
        { copy_generation current && activate; } || { copy_generation proven && activate; } || return
    elif [ $((polls % SECRETS_EVERY)) -eq 0 ] && update_address; then
        why="the address of $WATCHED_NAME changed"
    else
        why="the configuration changed"
        { read -r offered <"$NGINX_CONFIG_DIR/current/generation"; } 2>/dev/null || return
        if [ "$offered" = "$running" ]; then
            [ ! -e "$NGINX_ACTIVE_DIR/refused" ] || rm -f "$NGINX_ACTIVE_DIR/refused"
            return
        fi
        [ "$offered $secrets" != "$refused" ] || return
        copy_generation current && activate || return
    fi
    kill -HUP $$ && say configuration_applied "$running" "$why"
}

trap 'exit 0' TERM INT QUIT
rm -rf "$NGINX_ACTIVE_DIR"
mkdir -p "$NGINX_ACTIVE_DIR"
secrets=$(secrets_sum)
until { copy_generation current && activate; } || { copy_generation proven && activate; }; do
    before=$(cat "$NGINX_CONFIG_DIR"/*/generation 2>/dev/null)
    waited=0
    while [ $waited -lt 30 ] && [ "$(cat "$NGINX_CONFIG_DIR"/*/generation 2>/dev/null)" = "$before" ]; do
        sleep 1
        waited=$((waited + 1))
    done
    secrets=$(secrets_sum)
done
update_address
say configuration_applied "$running" start

(
    polls=0
    while sleep 1 && kill -0 $$ 2>/dev/null; do
        poll
    done
) &
exec "$NGINX_BINARY" -p "$NGINX_ACTIVE_DIR/current/" -c nginx.conf -g "$GLOBALS"
