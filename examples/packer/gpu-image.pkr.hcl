# GPU machine images with Packer and mlhost, without booting a machine to make them.
#
#   packer init examples/packer
#   packer build -only='ami.*' -var playbook=site.yaml examples/packer      on an EC2 instance: an AMI
#   packer build -only='disk.*' -var disk=debian.raw examples/packer        anywhere: a raw disk image, changed in place
#
# Both work as root, and mlhost must be installed where Packer runs; nothing of it, and no Python, has to be in the image. What needs the machine
# itself (the kernel module, the proof that a container sees the GPU) is finished by mlhost-first-boot.service at the image's first boot.

packer {
  required_version = ">= 1.9.0"
  required_plugins {
    amazon = {
      version = ">= 1.2.8"
      source  = "github.com/hashicorp/amazon"
    }
  }
}

variable "for_gpu" {
  type        = string
  default     = "aws:g6.xlarge"
  description = "The GPU of the machines that the image is for: an instance type, a model (l4), a PCI id (10de:27b8) or a generation (ada)."
}

variable "playbook" {
  type        = string
  default     = "gpu-host"
  description = "The desired state: a packaged playbook or a YAML file."
}

variable "region" {
  type    = string
  default = "eu-west-1"
}

variable "disk" {
  type        = string
  default     = ""
  description = "A raw disk image for the build `disk`."
}

variable "partition" {
  type        = string
  default     = "1"
  description = "The partition of that disk with the root file system; empty where the whole disk is one."
}

locals {
  stamp = formatdate("YYYYMMDD-hhmmss", timestamp())
}

# Debian's own images; 136693071363 is Debian's account (wiki.debian.org/Cloud/AmazonEC2Image).
data "amazon-ami" "debian" {
  region      = var.region
  owners      = ["136693071363"]
  most_recent = true
  filters = {
    name                = "debian-13-amd64-*"
    root-device-type    = "ebs"
    virtualization-type = "hvm"
  }
}

source "amazon-chroot" "image" {
  region          = var.region
  source_ami      = data.amazon-ami.debian.id
  ami_name        = "gpu-host-${local.stamp}"
  ena_support     = true
  mount_partition = "1"
  # A driver that is built takes room.
  root_volume_size = 16

  # The tree is mounted, and Packer's own mounts in it come later: mlhost needs none of them. No provisioner is needed.
  post_mount_commands = [
    "mlhost plan --root '{{.MountPath}}' --bake --for-gpu '${var.for_gpu}' -p '${var.playbook}' || [ $? = 3 ]",
    "mlhost setup --root '{{.MountPath}}' --yes --for-gpu '${var.for_gpu}' -p '${var.playbook}'",
  ]

  tags = {
    Name    = "gpu-host"
    for_gpu = var.for_gpu
  }
}

source "null" "disk" {
  communicator = "none"
}

build {
  name    = "ami"
  sources = ["source.amazon-chroot.image"]
}

build {
  name    = "disk"
  sources = ["source.null.disk"]

  provisioner "shell-local" {
    command = "sh '${path.root}/bake-disk.sh' '${var.disk}' '${var.partition}' --yes --for-gpu '${var.for_gpu}' -p '${var.playbook}'"
  }
}
