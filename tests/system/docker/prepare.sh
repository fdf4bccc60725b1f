#!/bin/sh
# Makes an image of a system into one that Vagrant can log in to: systemd, sshd, sudo, python3 (for the specs) and the user `vagrant`.
set -eu
if command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y --no-install-recommends systemd-sysv dbus openssh-server sudo python3 ca-certificates iproute2 kmod procps
    rm -rf /var/lib/apt/lists/*
elif command -v zypper >/dev/null; then
    zypper -n install systemd systemd-sysvinit dbus-1 openssh sudo python3 ca-certificates-mozilla iproute2 kmod procps shadow
    zypper clean -a
else
    dnf -y install systemd dbus openssh-server sudo python3 ca-certificates iproute kmod procps-ng shadow-utils passwd
    dnf clean all
fi
# What wants a machine's own hardware or console has no place here.
systemctl mask getty.target console-getty.service systemd-udevd.service systemd-networkd-wait-online.service >/dev/null 2>&1 || true
systemctl enable ssh.service 2>/dev/null || systemctl enable sshd.service
ssh-keygen -A
id vagrant >/dev/null 2>&1 || useradd --create-home --shell /bin/bash vagrant
# no password, but not locked either, or sshd without PAM lets nobody in by key
usermod --password '*' vagrant
mkdir -p /etc/sudoers.d /home/vagrant/.ssh
printf 'vagrant ALL=(ALL) NOPASSWD: ALL\n' >/etc/sudoers.d/vagrant
chmod 440 /etc/sudoers.d/vagrant
# Vagrant's insecure public key, https://github.com/hashicorp/vagrant/tree/main/keys; Vagrant puts one of its own in its place at the first login
printf '%s\n' "${VAGRANT_KEY:-ssh-rsa AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGEFHzD8+v1I2YJ6oXevct1YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn5y2hMNG0zQPyUecp4pzC6kivAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+FIPKcF96hrucXzcWyLbIbEgE98OHlnVYCzRdK8jlqm8tehUc9c9WhQ== vagrant insecure public key}" \
    >/home/vagrant/.ssh/authorized_keys
chmod 700 /home/vagrant/.ssh
chmod 600 /home/vagrant/.ssh/authorized_keys
chown -R vagrant: /home/vagrant/.ssh
