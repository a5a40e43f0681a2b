#!/usr/bin/env bash
# UDHT on a kind cluster, from the sources to the running release: makes the images, loads them, installs the chart, tests
# it, and says how to look. Again after a change: the same. It needs docker, kind, kubectl, helm and what `make image` needs.
#
#   KIND_CLUSTER=kind      the cluster; it is made where there is none of that name
#   NAMESPACE=udht         where to; it is made, and restricted pods are all that it takes
#   RELEASE=udht           the name of the release
#   IMAGE_TAG=...          tag of the two images; the version by default
#   IMAGES=make            `have`: they are in docker already
#   REDIS_IMAGE=NAME:TAG   an image of docker to load, in place of the one that the cluster pulls; where no registry is
#                          reached: k8s/local-image redis:local redis-server redis-cli
#   HELM=helm              which helm
# Arguments are for helm: k8s/kind.sh --set persistence.enabled=true
set -euo pipefail
cd "$(dirname "$0")/.."

cluster=${KIND_CLUSTER:-kind} namespace=${NAMESPACE:-udht} release=${RELEASE:-udht} helm=${HELM:-helm}
context=kind-$cluster
version=$(sed -n 's/^appVersion: "\(.*\)"/\1/p' charts/udht/Chart.yaml)
tag=${IMAGE_TAG:-$version}

for program in docker kind kubectl "$helm"; do
    command -v "$program" >/dev/null || { echo "kind.sh: $program is missing" >&2 && exit 1; }
done
say() { printf '\n== %s\n' "$*"; }

if ! kind get clusters 2>/dev/null | grep -xF -- "$cluster" >/dev/null; then
    say "a cluster, $cluster"
    kind create cluster --name "$cluster"
elif ! kubectl config get-contexts --output=name | grep -xF -- "$context" >/dev/null; then
    kind export kubeconfig --name "$cluster"
fi

images=(udht-manager:"$tag" udht-sync:"$tag")
if [ "${IMAGES:-make}" = make ]; then
    say "images"
    IMAGE_TAG=$tag IMAGE_LOAD=docker make image
fi
options=(--set "image.tag=$tag")
if [ -n "${REDIS_IMAGE:-}" ]; then
    images+=("$REDIS_IMAGE")
    options+=(--set "redis.image.repository=${REDIS_IMAGE%:*}" --set "redis.image.tag=${REDIS_IMAGE##*:}")
fi
say "load ${images[*]}"
kind load docker-image --name "$cluster" "${images[@]}"

say "install"
kubectl --context "$context" create namespace "$namespace" --dry-run=client --output=yaml |
    kubectl --context "$context" apply --filename=- >/dev/null
kubectl --context "$context" label namespace "$namespace" --overwrite pod-security.kubernetes.io/enforce=restricted >/dev/null
started=$SECONDS
"$helm" upgrade --install "$release" charts/udht --kube-context "$context" --namespace "$namespace" \
    --wait --timeout 5m "${options[@]}" "$@"
echo "kind.sh: all pods are ready after $((SECONDS - started)) s"

say "test"
"$helm" test "$release" --kube-context "$context" --namespace "$namespace" --timeout 4m

name=$("$helm" get manifest "$release" --kube-context "$context" --namespace "$namespace" |
    sed -n '/^kind: StatefulSet$/,/^  name:/s/^  name: //p')
say "look"
cat <<END
kubectl --context $context -n $namespace get pods -o wide
kubectl --context $context -n $namespace exec $name-0 -c manager -- /udht-manager list
kubectl --context $context -n $namespace exec $name-0 -c sync -- /udht-sync peers
kubectl --context $context -n $namespace port-forward $name-0 3002      # then http://127.0.0.1:3002
END
cat <<END
sed 's/_tcp.udht/_tcp.$name/' k8s/prometheus.yaml | kubectl --context $context -n $namespace apply -f k8s/prometheus-rules.yaml -f -
kubectl --context $context -n $namespace port-forward deployment/prometheus 9090      # figures and alerts
END
cat <<END

Be rid of it:
$helm uninstall $release --kube-context $context --namespace $namespace
END
