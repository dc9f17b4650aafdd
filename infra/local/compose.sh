# shellcheck shell=sh
# Which Compose there is: the plugin, or the program of before. Sourced by up.sh and down.sh.
if docker compose version > /dev/null 2>&1; then
    COMPOSE="docker compose"
elif command -v docker-compose > /dev/null; then
    COMPOSE=docker-compose
else
    echo "expected Docker with Compose, found none; install docker-compose-plugin or docker-compose" >&2
    exit 1
fi
compose() { $COMPOSE --project-name l2dm --env-file .env --file compose.yaml "$@"; }
