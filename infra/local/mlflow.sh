#!/bin/sh
# An MLflow server that asks for a password. What it needs is in the environment:
#   MLFLOW_DATABASE, MLFLOW_ARTIFACTS, MLFLOW_ADMIN_PASSWORD, MLFLOW_FLASK_SERVER_SECRET_KEY
set -eu
umask 077
export MLFLOW_AUTH_CONFIG_PATH="${TMPDIR:-/tmp}/mlflow-auth.ini"
cat > "$MLFLOW_AUTH_CONFIG_PATH" << END
[mlflow]
default_permission = READ
database_uri = ${MLFLOW_AUTH_DATABASE:-$MLFLOW_DATABASE}
admin_username = admin
admin_password = $MLFLOW_ADMIN_PASSWORD
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
END
unset MLFLOW_ADMIN_PASSWORD
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # eight processes and 2 GiB for nothing
exec mlflow server --app-name basic-auth --host "${MLFLOW_HOST:-0.0.0.0}" --port "${MLFLOW_PORT:-5000}" --workers 1 \
    --backend-store-uri "$MLFLOW_DATABASE" --artifacts-destination "$MLFLOW_ARTIFACTS" \
    ${MLFLOW_ALLOWED:+--allowed-hosts "$MLFLOW_ALLOWED"}
