# init.sh FOLDER NAME ADDRESS: pid 1 of a node's own mount, pid, network, UTS and IPC namespaces.
# What is done here is seen by nobody outside; when it ends, the node's processes, mounts and interfaces end with it.
set -eu
folder=$1
mount --make-rshared /                    # it began private, so that this stays inside
hostname "$2"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns
for part in lib log; do mount --bind "$folder/var/$part" "/var/$part"; done
mount -t overlay -o "lowerdir=/etc,upperdir=$folder/etc,workdir=$folder/etc-work" overlay /etc
mount --bind "$folder/kubernetes" /etc/kubernetes
# The kubelet sets these for the whole machine: it is shown files that hold what it wants.
fake() { file="$folder/sysctl/$(echo "$1" | tr / _)"; echo "$2" > "$file"; mount --bind "$file" "/proc/sys/$1"; }
fake vm/overcommit_memory 1
fake vm/panic_on_oom 0
fake kernel/panic 10
fake kernel/panic_on_oops 1
fake kernel/keys/root_maxkeys 1000000
fake kernel/keys/root_maxbytes 25000000
ip link set lo up
ip address add "$3/32" dev lo             # the cluster's DNS
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 2>/dev/null > /proc/sys/net/bridge/bridge-nf-call-iptables || :
touch /run/node-is-set-up
trap 'exit 0' TERM
while :; do sleep 1000000 & wait $!; done
