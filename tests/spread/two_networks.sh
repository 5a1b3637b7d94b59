#!/bin/sh
# Runs a command, as mpirun, in a network of its own, from which a wire leads to another that stands for a
# second node: unshare -n two_networks.sh COMMAND...
#
# In the one this node is 10.77.0.1, in the other 10.77.0.2; OMPI_MCA_plm_rsh_agent leads from one to the
# other, as ssh would. They have no names: both vanish with the last process in them, and the one that holds
# the other open is killed when the command ends, however it ends.
set -eu
if [ "$1" = enter ]; then # HOST COMMAND...
    shift 2
    exec nsenter -t "$OTHER_NETWORK" -n -- sh -c "$*"
fi
setpriv --pdeathsig KILL unshare -n sleep 600 >/dev/null 2>&1 &
OTHER_NETWORK=$!
while [ "$(readlink /proc/$OTHER_NETWORK/ns/net)" = "$(readlink /proc/$$/ns/net)" ]; do
    sleep 0.01
done
ip link add wire type veth peer name wire netns $OTHER_NETWORK
up='ip link set lo up && ip link set wire up && ip addr add dev wire'
sh -c "$up 10.77.0.1/24"
nsenter -t $OTHER_NETWORK -n -- sh -c "$up 10.77.0.2/24"
export OTHER_NETWORK OMPI_MCA_plm_rsh_agent="$0 enter"
exec "$@"
