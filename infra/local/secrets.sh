#!/bin/sh
# Makes .env with random secrets, once, and client.sh, which tells a shell how to reach the servers.
set -eu
cd "$(dirname "$0")"
umask 077

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
if [ ! -s .env ]; then
    {
        echo "L2DM_LOCAL_S3_KEY=l2dm"
        for name in S3_SECRET POSTGRES_PASSWORD MLFLOW_PASSWORD MLFLOW_SECRET WEBHOOK_TOKEN; do
            echo "L2DM_LOCAL_$name=$(random)"
        done
    } > .env.new
    mv .env.new .env
fi
# shellcheck source=/dev/null
. ./.env
cat > client.sh << END
export AWS_ENDPOINT_URL=http://127.0.0.1:${L2DM_S3_PORT:-9000} AWS_REGION=us-east-1
export AWS_ACCESS_KEY_ID=$L2DM_LOCAL_S3_KEY AWS_SECRET_ACCESS_KEY=$L2DM_LOCAL_S3_SECRET
export MLFLOW_TRACKING_URI=http://127.0.0.1:${L2DM_MLFLOW_PORT:-5000}
export MLFLOW_TRACKING_USERNAME=admin MLFLOW_TRACKING_PASSWORD=$L2DM_LOCAL_MLFLOW_PASSWORD
# files through MLflow: it would name S3 by an address that only containers know
export MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD=false MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD=false
export L2DM_HOME=s3://l2dm/state
END
