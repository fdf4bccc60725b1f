# The job by hand, for the paramiko loop: whether seven resources are as wanted. $1: the checksum that the file is to have.
set -e
[ "$(dpkg-query -W -f '${db:Status-Status}' docker-ce)" = installed ]
echo "$1  /etc/docker/README" | sha256sum -c - >/dev/null
[ "$(stat -c '%a %F' /etc/docker)" = '755 directory' ]
/etc/init.d/docker status
case " $(id -nG admin) " in *' docker '*) ;; *) exit 1 ;; esac
grep -qx BENCH=1 /etc/environment
docker version --format '{{.Server.Version}}' >/dev/null
