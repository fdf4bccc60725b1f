# What a host's Docker has and what there is to send images with. Arguments: names of images to describe, each optional. Reads only.
# Prints lines `KEY VALUE`; Docker's own answers are JSON on one line.
docker=
if ! command -v docker >/dev/null 2>&1; then
    echo "docker none"
    exit 0
fi
if docker info >/dev/null 2>&1; then
    docker=docker
elif command -v sudo >/dev/null 2>&1 && sudo -n docker info >/dev/null 2>&1; then
    docker="sudo -n docker"
else
    echo "docker closed $(docker ps -q 2>&1 | tail -n 1)"
    exit 0
fi
echo "docker $docker"
for tool in zstd pigz gzip; do
    command -v "$tool" >/dev/null 2>&1 && echo "tool $tool"
done
tar --version 2>/dev/null | grep -q 'GNU tar' && echo "tool gnutar"
echo "info $($docker info --format '{{json .}}' 2>/dev/null)"
root=$($docker info --format '{{.DockerRootDir}}' 2>/dev/null)
space=$({ df -Pk "$root" || sudo -n df -Pk "$root"; } 2>/dev/null | awk 'NR == 2 { print $4 }')
echo "space ${space:-unknown}"
for image in "$@"; do
    if found=$($docker image inspect --format '{{json .}}' "$image" 2>/dev/null); then
        echo "image $found"
    else
        echo "absent $image"
    fi
done
ids=$($docker image ls --no-trunc -q 2>/dev/null | sort -u)
# shellcheck disable=SC2086 # ids are hexadecimal words
[ -z "$ids" ] || $docker image inspect --format '{{json .RootFS.Layers}}' $ids 2>/dev/null | sed 's/^/layers /'
