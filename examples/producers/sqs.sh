#!/bin/sh
# Submit a run with nothing but curl:
#   sqs.sh http://localhost:9324/000000000000/shop-reports '{"topic": "k8s"}' order-4711
# The second word is the task's arguments as JSON; the third, if given, an idempotency key: sent twice, it is one run.
# Where AWS_ACCESS_KEY_ID is set the request is signed, with AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and AWS_REGION.
set -eu
queue_url=$1 args=$2 key=${3:-}

quoted() { printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"; }

signing() { # as curl's own settings, so that no process list shows the secret
  [ -n "${AWS_ACCESS_KEY_ID:-}" ] || return 0
  printf 'aws-sigv4 = "aws:amz:%s:sqs"\n' "${AWS_REGION:-us-east-1}"
  printf 'user = "%s:%s"\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY"
  [ -z "${AWS_SESSION_TOKEN:-}" ] || printf 'header = "X-Amz-Security-Token: %s"\n' "$AWS_SESSION_TOKEN"
}

envelope="{\"task\": \"report\", \"args\": $args${key:+, \"key\": $(quoted "$key")}}"
signing | curl --config - --silent --show-error --fail-with-body "$queue_url" \
  --data-urlencode "Action=SendMessage" \
  --data-urlencode "Version=2012-11-05" \
  --data-urlencode "MessageBody=$envelope"
