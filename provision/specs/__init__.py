"""What a GPU container host promises, as testinfra specs for anybody's CI:

    pip install 'mlhost[specs]'
    pytest --pyargs provision.specs --hosts=ssh://admin@gpu-7 --sudo

They look at the host by themselves, with nothing of mlhost's own probe, plan or scripts, so that they can judge what those did. What a machine has not
(a GPU, an NVSwitch) is skipped. Environment variables say what cannot be seen:

- MLHOST_SPEC_GPUS: how many NVIDIA GPUs there must be (default: as many as are on the PCI bus);
- MLHOST_SPEC_IMAGE: the image for containers, which must have `sh` (default: the one that `mlhost setup` made on the host);
- MLHOST_SPEC_RELOAD=1: run `systemctl daemon-reload` to see that a running container keeps its GPUs; it takes them from containers that are set up wrongly.
"""
