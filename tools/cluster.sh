#!/bin/sh
# Three members on this machine, until ^C: clients at 2379, 22379 and 32379, data and logs below cluster.data.
#
#   tools/cluster.sh [FLAGS]     FLAGS go to every member
#   QUIRE=path tools/cluster.sh  another binary than bin/quire
set -eu
cd "$(dirname "$0")/.."
quire=${QUIRE:-bin/quire}
dir=${CLUSTER_DIR:-cluster.data}
members="m1=http://127.0.0.1:2380,m2=http://127.0.0.1:22380,m3=http://127.0.0.1:32380"
mkdir -p "$dir"
pids=
stop() {
	trap - INT TERM EXIT
	# shellcheck disable=SC2086 # a list
	kill $pids 2>/dev/null || true
	wait
}
trap stop INT TERM EXIT
start() { # NAME CLIENT_PORT PEER_PORT FLAGS
	name=$1 client=http://127.0.0.1:$2 peer=http://127.0.0.1:$3
	shift 3
	"$quire" --name "$name" --data-dir "$dir/$name.etcd" \
		--listen-client-urls "$client" --advertise-client-urls "$client" \
		--listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
		--initial-cluster "$members" --initial-cluster-token local "$@" 2>>"$dir/$name.log" &
	pids="$pids $!"
	echo "$name: $client, pid $!, log $dir/$name.log"
}
start m1 2379 2380 "$@"
start m2 22379 22380 "$@"
start m3 32379 32380 "$@"
wait
